//! Invitations of one account against a model of them: any order of sends, links, reports and changes.

use account_svc::{
    domain::state::InvitationState as EmailState, use_cases::deliveries::Deliveries,
};
use proptest::{
    collection::vec,
    prelude::any,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use sqlx::PgConnection;
use tokio::sync::Mutex;
use usher_proto::account::v1::{
    Account, AccountState, CloseAccountRequest, Invitation, InvitationState, ReopenAccountRequest,
    TokenStatus,
};
use usher_runtime::{consumer::EventHandler as _, wake::Wake};
use uuid::Uuid;

use super::model::{Model, Modelled, Progress, Step, step};
use crate::support::{
    PASSWORD, Service, new_account, refusal, send_invitation, stored_report, update_account,
};

/// Where the random numbers begin; a failure is found again with the same one.
const SEED: [u8; 32] = [7; 32];
const CASES: u32 = 40;

#[test]
fn invitations_behave_like_their_model() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let world = Mutex::new(runtime.block_on(async {
        let service = Service::start().await;
        let admin = service.admin().await;
        (service, admin, Seen::default())
    }));
    let config = Config {
        cases: CASES,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    };
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &SEED);
    let checked = TestRunner::new_with_rng(config, random).run(
        &(vec(step(), 8..20), any::<usize>()),
        |(steps, last)| {
            runtime.block_on(async {
                let mut world = world.lock().await;
                let (service, admin, seen) = &mut *world;
                let mut case = Case::start(service, admin, seen).await;
                for step in steps {
                    case.run(step).await;
                    case.check().await;
                }
                case.check_links().await;
                case.run(Step::Activate(last)).await;
                case.check().await;
                case.check_links().await;
            });
            Ok(())
        },
    );
    if let Err(failure) = checked {
        panic!("with the seed {SEED:?}: {failure}");
    }
    let seen = &world.into_inner().2;
    let counts = [
        seen.two_links,
        seen.superseded,
        seen.used_of_two,
        seen.waiting,
        seen.given_up,
        seen.too_late,
    ];
    assert!(
        counts.iter().all(|&count| count > 1),
        "too little was tried: {seen:?}"
    );
}

/// How often what matters came to pass.
#[derive(Debug, Default)]
struct Seen {
    two_links: u32,
    superseded: u32,
    used_of_two: u32,
    waiting: u32,
    /// Emails that were given up, and reports that they wait which came afterwards.
    given_up: u32,
    too_late: u32,
}

/// One account, with the service that has it.
struct Case<'a> {
    seen: &'a mut Seen,
    service: &'a mut Service,
    admin: &'a mut PgConnection,
    model: Model,
}

impl<'a> Case<'a> {
    async fn start(
        service: &'a mut Service,
        admin: &'a mut PgConnection,
        seen: &'a mut Seen,
    ) -> Self {
        let organization = service.organization().await;
        let email = format!("{}@example.org", Uuid::now_v7().simple());
        let request = new_account(&organization, "Ann", "Lee", &email);
        let account = service.create(request).await;
        let first = account.last_invitation.clone().unwrap().invitation_id;
        let mut case = Self {
            seen,
            service,
            admin,
            model: Model {
                account,
                invitations: Vec::new(),
                reports: Vec::new(),
                is_active: false,
                is_closed: false,
                emails: 0,
            },
        };
        case.made(first).await;
        case
    }

    /// The client gets the link of a new invitation, sooner or later.
    async fn made(&mut self, invitation_id: String) {
        let token = loop {
            // Events of a case that failed may come first.
            let link = self.service.next_link().await;
            if link.event.invitation_id == invitation_id {
                break link.token;
            }
        };
        self.model.invitations.push(Modelled {
            invitation_id,
            token,
            mail: (EmailState::Queued, 0),
            shown: (EmailState::Queued, 0),
            is_old: false,
            is_given_up: false,
            is_expired: false,
            end: None,
        });
    }

    async fn run(&mut self, step: Step) {
        let index = |which: usize| which % self.model.invitations.len();
        match step {
            Step::Send => self.send().await,
            Step::Revoke(which) => self.revoke(index(which)).await,
            Step::Activate(which) => self.activate(index(which)).await,
            Step::Mail(which, progress, is_reported) => {
                let count = self.model.invitations.len();
                self.mail(latest(count, which), progress);
                if is_reported {
                    // Even numbers choose the latest.
                    self.report(&[0]).await;
                }
            }
            Step::Report(which) => self.report(&which).await,
            Step::CorrectEmail => self.correct_email().await,
            Step::ChangeCapitals => self.change_capitals().await,
            Step::Close => self.close().await,
            Step::Reopen => self.reopen().await,
            Step::Expire(which) => self.expire(index(which)).await,
            Step::TenMinutesPass => self.ten_minutes_pass().await,
        }
    }

    async fn send(&mut self) {
        let request = send_invitation(&self.model.account);
        if self.model.is_closed || self.model.is_active {
            let result = self.service.invitations.send_invitation(request).await;
            let reason = if self.model.is_closed {
                "ACCOUNT_CLOSED"
            } else {
                "ACCOUNT_ALREADY_ACTIVE"
            };
            assert_eq!(refusal(result).reason, reason);
            return;
        }
        for one in &mut self.model.invitations {
            let was_given_up = one.is_given_up;
            one.give_up();
            self.seen.given_up += u32::from(one.is_given_up && !was_given_up);
        }
        let (invitation, already_waiting) = self.service.send(request).await;
        if let Some(waiting) = self.model.invitations.iter().find(|one| one.waits()) {
            assert_eq!(invitation.invitation_id, waiting.invitation_id);
            assert!(already_waiting);
            self.seen.waiting += 1;
        } else {
            assert!(!already_waiting, "{}", self.model);
            self.made(invitation.invitation_id).await;
        }
    }

    async fn revoke(&mut self, index: usize) {
        let one = &self.model.invitations[index];
        let invitation = self
            .service
            .invitation(&self.model.account.organization_id, &one.invitation_id)
            .await;
        let result = self.service.revoke(&invitation).await;
        if one.is_open() {
            assert_eq!(result.unwrap().state(), InvitationState::Revoked);
            self.model.end_all(InvitationState::Revoked);
        } else if one.end == Some(InvitationState::Revoked) {
            result.unwrap();
        } else {
            assert_eq!(refusal(result).reason, "INVITATION_ENDED");
        }
    }

    async fn activate(&mut self, index: usize) {
        let one = &self.model.invitations[index];
        let status = one.status(self.model.is_active);
        let result = self.service.activate(&one.token, PASSWORD).await;
        if status == TokenStatus::Valid {
            result.unwrap();
            let open = self.model.invitations.iter().filter(|one| one.is_open());
            self.seen.used_of_two += u32::from(open.count() > 1);
            self.model.is_active = true;
            self.model.invitations[index].end(InvitationState::Accepted);
            self.model.end_all(InvitationState::Superseded);
        } else {
            let reason = refusal(result).reason;
            let expected = status.as_str_name().replace("TOKEN_STATUS", "TOKEN");
            assert_eq!(reason, expected, "{}", self.model);
        }
    }

    fn mail(&mut self, index: usize, progress: Progress) {
        let one = &mut self.model.invitations[index];
        let state = match (one.mail.0, progress) {
            (EmailState::Queued, Progress::TakeIn) if one.mail.1 == 0 => EmailState::Queued,
            (EmailState::Queued, Progress::Throttle) => EmailState::Throttled,
            (EmailState::Queued | EmailState::Throttled, Progress::Send) => EmailState::Sent,
            (EmailState::Queued | EmailState::Throttled, Progress::Fail) => EmailState::Failed,
            (EmailState::Sent, Progress::Deliver) => EmailState::Delivered,
            (EmailState::Sent, Progress::Bounce) => EmailState::Bounced,
            _ => return,
        };
        one.mail = (state, one.mail.1 + 1);
        let invitation = Invitation {
            organization_id: self.model.account.organization_id.clone(),
            invitation_id: one.invitation_id.clone(),
            ..Default::default()
        };
        let report = stored_report(&invitation, state, one.mail.1);
        self.model.reports.push(report);
    }

    async fn report(&mut self, which: &[usize]) {
        let known = &self.model.reports;
        if known.is_empty() {
            return;
        }
        let batch: Vec<_> = which
            .iter()
            .map(|&which| known[latest(known.len(), which)].clone())
            .collect();
        let consumer = Deliveries {
            pool: self.service.pool.clone(),
            outbox: Wake::default(),
        };
        consumer.store(&batch).await.unwrap();
        for report in &batch {
            let id = report.invitation_id.to_string();
            let all = &mut self.model.invitations;
            let index = all.iter().position(|one| one.invitation_id == id).unwrap();
            let is_too_late = all[index].is_given_up && report.state.is_waiting();
            self.seen.too_late += u32::from(is_too_late);
            all[index].told(report);
            if report.sent_time.is_some() {
                for older in &mut all[..index] {
                    self.seen.superseded += u32::from(older.is_open());
                    older.end(InvitationState::Superseded);
                }
            }
        }
    }

    async fn correct_email(&mut self) {
        self.model.emails += 1;
        let (model, email) = (&self.model, self.model.account.email());
        let email = format!("{}{email}", letter(model.emails));
        let request = update_account(&model.account, &["email"], with_email(&email));
        if model.is_active {
            let result = self.service.accounts.update_account(request).await;
            assert_eq!(refusal(result).reason, "EMAIL_OWNED_BY_CLIENT");
            return;
        }
        let updated = self.service.update(request).await;
        self.model.end_all(InvitationState::Revoked);
        self.model.account.email = Some(email);
        if !self.model.is_closed {
            self.made(updated.last_invitation.unwrap().invitation_id)
                .await;
        }
    }

    /// The same mailbox: nothing is sent and nothing ends.
    async fn change_capitals(&mut self) {
        let account = &mut self.model.account;
        let (local, domain) = account.email().split_once('@').unwrap();
        let local = if local.contains(char::is_lowercase) {
            local.to_uppercase()
        } else {
            local.to_lowercase()
        };
        let email = format!("{local}@{domain}");
        let request = update_account(account, &["email"], with_email(&email));
        let updated = self.service.update(request).await;
        assert_eq!(updated.email(), email);
        account.email = Some(email);
    }

    async fn close(&mut self) {
        let request = CloseAccountRequest {
            organization_id: self.model.account.organization_id.clone(),
            account_id: self.model.account.account_id.clone(),
            ..Default::default()
        };
        self.service.accounts.close_account(request).await.unwrap();
        self.model.is_closed = true;
        self.model.end_all(InvitationState::Revoked);
    }

    async fn reopen(&mut self) {
        let request = ReopenAccountRequest {
            organization_id: self.model.account.organization_id.clone(),
            account_id: self.model.account.account_id.clone(),
            ..Default::default()
        };
        self.service.accounts.reopen_account(request).await.unwrap();
        self.model.is_closed = false;
    }

    async fn expire(&mut self, index: usize) {
        let expired = &mut self.model.invitations[..=index];
        let ids: Vec<_> = expired
            .iter()
            .map(|one| Uuid::try_parse(&one.invitation_id).unwrap())
            .collect();
        for table in ["invitations", "tokens"] {
            let past = format!(
                "UPDATE {table} SET expire_time = now() - interval '1 hour'
                WHERE invitation_id = ANY ($1)"
            );
            sqlx::query(sqlx::AssertSqlSafe(past))
                .bind(&ids)
                .execute(&mut *self.admin)
                .await
                .unwrap();
        }
        for one in expired {
            one.is_expired = true;
        }
    }

    async fn ten_minutes_pass(&mut self) {
        sqlx::query(
            "UPDATE invitations SET create_time = create_time - interval '11 minutes'
            WHERE account_id = $1::uuid",
        )
        .bind(&self.model.account.account_id)
        .execute(&mut *self.admin)
        .await
        .unwrap();
        for one in &mut self.model.invitations {
            one.is_old = true;
        }
    }

    /// What the API shows is what the model says, and the rules hold for what it shows.
    async fn check(&mut self) {
        let Model { account, .. } = &self.model;
        let mut shown = self.service.invitations_of(account).await;
        shown.reverse();
        assert_eq!(shown.len(), self.model.invitations.len());
        let (mut open, mut waiting) = (0, 0);
        for (invitation, one) in shown.iter().zip(&self.model.invitations) {
            assert_eq!(invitation.invitation_id, one.invitation_id);
            assert_eq!(invitation.state(), one.state(), "{}", self.model);
            open += u32::from(one.is_open());
            waiting += u32::from(matches!(
                invitation.state(),
                InvitationState::Queued | InvitationState::Throttled
            ));
        }
        let now = self
            .service
            .account(&account.organization_id, &account.account_id)
            .await;
        assert_eq!(now.state(), self.model.state(), "{}", self.model);
        self.seen.two_links += u32::from(open > 1);
        assert!(waiting <= 1, "{waiting} emails wait: {}", self.model);
        assert_eq!(now.last_invitation.as_ref(), shown.last());
    }

    /// Each link is as good as the model says, and the account is invited exactly as long as one works.
    async fn check_links(&mut self) {
        let mut works = false;
        for one in &self.model.invitations {
            let inspected = self.service.inspect(&one.token).await.unwrap();
            let expected = one.status(self.model.is_active);
            assert_eq!(inspected.status(), expected, "{}", self.model);
            works |= inspected.status() == TokenStatus::Valid;
        }
        let Model { account, .. } = &self.model;
        let now = self
            .service
            .account(&account.organization_id, &account.account_id)
            .await;
        assert_eq!(now.state() == AccountState::Invited, works);
    }
}

fn with_email(email: &str) -> Account {
    Account {
        email: Some(email.to_owned()),
        ..Default::default()
    }
}

fn letter(number: usize) -> char {
    char::from(b'a' + u8::try_from(number % 26).unwrap())
}

/// Chooses one of `len`: the last one half of the time.
fn latest(len: usize, which: usize) -> usize {
    if which.is_multiple_of(2) {
        len - 1
    } else {
        which / 2 % len
    }
}
