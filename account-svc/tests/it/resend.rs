//! Inviting again: which links work meanwhile, and that one email waits at most.

use std::collections::HashMap;

use account_svc::db::invitation::record_deliveries;
use futures::future::{join, join_all};
use prost_types::Timestamp;
use tonic::{Code, transport::Channel};
use usher_proto::{
    account::v1::{
        Account, AccountState, CreateAccountRequest, Invitation, InvitationState,
        ListAuditEventsRequest, Organization, OrganizationSettings, SendInvitationRequest,
        TokenStatus, audit_service_client::AuditServiceClient,
    },
    event::v1::{DeliveryChanged, DeliveryState, event::Payload},
};
use usher_runtime::database::{self, Scope};

use crate::support::{
    Link, PASSWORD, Service, assert_invalid, assert_refused, new_account, refusal, report_of,
    send_invitation, stored_report, update_account, update_organization,
};

/// An account with a link in the client's hands and a newer one whose email waits.
struct Resent {
    account: Account,
    first: (Invitation, Link),
    second: (Invitation, Link),
}

impl Service {
    async fn resent(&mut self, request: CreateAccountRequest) -> Resent {
        let account = self.create(request).await;
        let link = self.next_link().await;
        let invitation = account.last_invitation.clone().unwrap();
        let first = (self.sent(&invitation).await, link);
        let second = self.invite(&account).await;
        let second = (second, self.next_link().await);
        Resent {
            account,
            first,
            second,
        }
    }

    async fn status(&self, link: &Link) -> TokenStatus {
        self.inspect(&link.token).await.unwrap().status()
    }

    async fn states_of(&self, account: &Account) -> Vec<InvitationState> {
        let invitations = self.invitations_of(account).await;
        invitations.iter().map(Invitation::state).collect()
    }
}

fn ann(organization_id: &str) -> CreateAccountRequest {
    new_account(organization_id, "Ann", "Lee", "ann@example.org")
}

#[tokio::test]
async fn the_link_in_hand_works_until_the_newer_email_has_left() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let Resent {
        account,
        first,
        second,
    } = service.resent(ann(&organization)).await;
    assert_ne!(first.1.token, second.1.token);
    let waiting = DeliveryChanged {
        throttled_until: Some(Timestamp {
            seconds: 1_900_000_000,
            nanos: 0,
        }),
        ..report_of(&second.0, DeliveryState::Throttled, 1)
    };
    service.report(&organization, waiting).await;
    service
        .invitation_in(&second.0, InvitationState::Throttled)
        .await;
    for link in [&first.1, &second.1] {
        assert_eq!(service.status(link).await, TokenStatus::Valid);
    }
    let shown = service.account(&organization, &account.account_id).await;
    assert_eq!(shown.state(), AccountState::Invited);
    let newest = shown.last_invitation.unwrap();
    assert_eq!(newest.invitation_id, second.0.invitation_id);
    assert_eq!(newest.state(), InvitationState::Throttled);

    service.sent(&second.0).await;
    assert_eq!(
        service.states_of(&account).await,
        [InvitationState::Sent, InvitationState::Superseded]
    );
    assert_eq!(service.status(&first.1).await, TokenStatus::Superseded);
    let result = service.activate(&first.1.token, PASSWORD).await;
    assert_refused(result, Code::FailedPrecondition, "TOKEN_SUPERSEDED", &[]);
    service.activate(&second.1.token, PASSWORD).await.unwrap();
    assert_eq!(
        service.states_of(&account).await,
        [InvitationState::Accepted, InvitationState::Superseded]
    );
}

#[tokio::test]
async fn using_the_older_link_ends_the_newer_one_and_stops_its_email() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let Resent {
        account,
        first,
        second,
    } = service.resent(ann(&organization)).await;
    service.activate(&first.1.token, PASSWORD).await.unwrap();
    let Some(Payload::InvitationRevoked(stopped)) = service.next_event().await.payload else {
        panic!("the second email is to be stopped");
    };
    assert_eq!(stopped.invitation_id, second.0.invitation_id);
    assert_eq!(
        service.states_of(&account).await,
        [InvitationState::Superseded, InvitationState::Accepted]
    );
    // There is no newer email to look for: the client can log in.
    for link in [&first.1, &second.1] {
        let result = service.activate(&link.token, PASSWORD).await;
        assert_refused(result, Code::FailedPrecondition, "TOKEN_USED", &[]);
        assert_eq!(service.status(link).await, TokenStatus::Used);
    }
    let shown = service.account(&organization, &account.account_id).await;
    assert_eq!(shown.state(), AccountState::Active);
}

#[tokio::test]
async fn of_64_callers_with_both_links_of_an_account_one_wins() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let resent = service.resent(ann(&organization)).await;
    let tokens = [&resent.first.1.token, &resent.second.1.token];
    let calls = (0..64).map(|index| service.activate(tokens[index % 2], PASSWORD));
    let mut answers: HashMap<String, usize> = HashMap::new();
    for result in join_all(calls).await {
        let answer = match result {
            Ok(_) => "OK".to_owned(),
            refused @ Err(_) => refusal(refused).reason,
        };
        *answers.entry(answer).or_default() += 1;
    }
    assert_eq!(
        answers,
        HashMap::from([("OK".to_owned(), 1), ("TOKEN_USED".to_owned(), 63)])
    );
    let mut states = service.states_of(&resent.account).await;
    states.sort_by_key(|state| *state as i32);
    assert_eq!(
        states,
        [InvitationState::Accepted, InvitationState::Superseded]
    );
}

#[tokio::test]
async fn an_email_that_fails_leaves_the_older_link_and_another_can_be_sent() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let Resent {
        account,
        first,
        second,
    } = service.resent(ann(&organization)).await;
    for (revision, state, shown) in [
        (1, DeliveryState::Failed, InvitationState::Failed),
        (2, DeliveryState::Suppressed, InvitationState::Suppressed),
        (3, DeliveryState::Cancelled, InvitationState::Failed),
    ] {
        let report = report_of(&second.0, state, revision);
        service.report(&organization, report).await;
        service.invitation_in(&second.0, shown).await;
        assert_eq!(service.status(&first.1).await, TokenStatus::Valid);
    }
    let shown = service.account(&organization, &account.account_id).await;
    assert_eq!(shown.state(), AccountState::Invited);

    let (third, already_waiting) = service.send(send_invitation(&account)).await;
    assert!(!already_waiting);
    assert_eq!(service.status(&first.1).await, TokenStatus::Valid);
    service.next_link().await;
    service.sent(&third).await;
    assert_eq!(
        service.states_of(&account).await,
        [
            InvitationState::Sent,
            InvitationState::Superseded,
            InvitationState::Superseded
        ]
    );
    // What failed may be tried again, the first has left.
    let Some(Payload::InvitationRevoked(stopped)) = service.next_event().await.payload else {
        panic!("the second email is to be stopped");
    };
    assert_eq!(stopped.invitation_id, second.0.invitation_id);
}

#[tokio::test]
async fn an_email_whose_answer_was_lost_is_sent_once_more_and_waits() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let resent = service.resent(ann(&organization)).await;
    let (first, second) = (resent.first, resent.second.0);
    let lost = report_of(&second, DeliveryState::Unknown, 1);
    service.report(&organization, lost).await;
    // It shows nothing new, so what follows shows that it was taken over.
    let queued = report_of(&first.0, DeliveryState::Delivered, 9);
    service.report(&organization, queued).await;
    service
        .invitation_in(&first.0, InvitationState::Delivered)
        .await;
    let (waiting, already_waiting) = service.send(send_invitation(&resent.account)).await;
    assert!(already_waiting);
    assert_eq!(waiting.invitation_id, second.invitation_id);
    assert_eq!(waiting.state(), InvitationState::Queued);
}

#[tokio::test]
async fn many_clicks_make_one_email_and_push_nothing_back() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let account = service.create(ann(&organization)).await;
    let first = service.next_link().await;
    service
        .sent(account.last_invitation.as_ref().unwrap())
        .await;
    let clicks = join_all((0..64).map(|_| service.send(send_invitation(&account)))).await;
    let made: Vec<_> = clicks.iter().filter(|(_, waiting)| !waiting).collect();
    assert_eq!(made.len(), 1);
    let second = &made[0].0;
    for (invitation, _) in &clicks {
        assert_eq!(invitation.invitation_id, second.invitation_id);
    }
    assert_eq!(
        service.next_link().await.event.invitation_id,
        second.invitation_id
    );

    let at = Some(Timestamp {
        seconds: 1_900_000_000,
        nanos: 123_456_000,
    });
    let throttled = DeliveryChanged {
        throttled_until: at,
        ..report_of(second, DeliveryState::Throttled, 1)
    };
    service.report(&organization, throttled).await;
    service
        .invitation_in(second, InvitationState::Throttled)
        .await;
    for _ in 0..10 {
        let (waiting, already_waiting) = service.send(send_invitation(&account)).await;
        assert!(already_waiting);
        assert_eq!(waiting.invitation_id, second.invitation_id);
        assert_eq!(waiting.throttled_until, at);
    }
    assert_eq!(service.invitations_of(&account).await.len(), 2);
    assert_eq!(audited(&service, &account).await["invitation.sent"], 2);
    // No email was asked for or stopped since: the next event is of another account.
    let other = service
        .create(new_account(&organization, "Bo", "Diaz", "bo@example.org"))
        .await;
    let Some(Payload::InvitationRequested(next)) = service.next_event().await.payload else {
        panic!("an email was stopped");
    };
    assert_eq!(next.account_id, other.account_id);
    service.activate(&first.token, PASSWORD).await.unwrap();
}

/// How often each action stands in the audit log of an account.
async fn audited(service: &Service, account: &Account) -> HashMap<String, usize> {
    let request = ListAuditEventsRequest {
        organization_id: account.organization_id.clone(),
        account_id: account.account_id.clone(),
        ..Default::default()
    };
    let endpoint = Channel::from_shared(format!("http://{}", service.address)).unwrap();
    let mut client = AuditServiceClient::new(endpoint.connect().await.unwrap());
    let response = client.list_audit_events(request).await.unwrap();
    let mut actions = HashMap::new();
    for event in response.into_inner().audit_events {
        *actions.entry(event.action).or_default() += 1;
    }
    actions
}

#[tokio::test]
async fn form_and_return_url_are_kept_unless_told_otherwise() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let url = "https://portal.acme.example/welcome";
    let mut request = ann(&organization);
    (request.form_id, request.return_url) = ("intake".to_owned(), url.to_owned());
    let Resent {
        account, second, ..
    } = service.resent(request).await;
    assert_eq!(
        (second.0.form_id.as_str(), second.0.return_url.as_str()),
        ("intake", url)
    );
    assert_eq!(second.1.event.form_id, "intake");
    assert_eq!(second.1.event.return_url, url);

    // A corrected email keeps them too.
    let corrected = Account {
        email: Some("annie@example.org".to_owned()),
        ..Default::default()
    };
    let updated = service
        .update(update_account(&account, &["email"], corrected))
        .await;
    let third = updated.last_invitation.unwrap();
    assert_eq!(
        (third.form_id.as_str(), third.return_url.as_str()),
        ("intake", url)
    );
    service.sent(&third).await;

    // Empty means none, and leaves the other alone.
    let (fourth, _) = service
        .send(SendInvitationRequest {
            form_id: Some(String::new()),
            ..send_invitation(&account)
        })
        .await;
    assert_eq!(
        (fourth.form_id.as_str(), fourth.return_url.as_str()),
        ("", url)
    );
    service.sent(&fourth).await;
    let (fifth, _) = service
        .send(SendInvitationRequest {
            form_id: Some("other".to_owned()),
            return_url: Some(String::new()),
            ..send_invitation(&account)
        })
        .await;
    assert_eq!(
        (fifth.form_id.as_str(), fifth.return_url.as_str()),
        ("other", "")
    );
}

#[tokio::test]
async fn a_kept_return_url_whose_origin_was_removed_is_left_out() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let allow = |origins: &[&str]| {
        let new = Organization {
            allowed_return_origins: origins.iter().map(|&origin| origin.to_owned()).collect(),
            ..Default::default()
        };
        update_organization(&organization, &["allowed_return_origins"], new)
    };
    service
        .update_organization(allow(&["https://app.example.org"]))
        .await;
    let mut request = ann(&organization);
    request.return_url = "https://app.example.org/done".to_owned();
    let account = service.create(request).await;
    let first = account.last_invitation.as_ref().unwrap();
    assert_eq!(first.return_url, "https://app.example.org/done");
    service.sent(first).await;
    service.update_organization(allow(&[])).await;

    // Whoever asks for it now is told.
    let again = SendInvitationRequest {
        return_url: Some("https://app.example.org/done".to_owned()),
        ..send_invitation(&account)
    };
    let result = service.invitations.send_invitation(again).await;
    assert_invalid(result, &["return_url"]);
    let (kept, already_waiting) = service.send(send_invitation(&account)).await;
    assert_eq!((kept.return_url.as_str(), already_waiting), ("", false));
}

#[tokio::test]
async fn a_waiting_invitation_takes_another_form_and_return_url_over() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let mut request = ann(&organization);
    request.form_id = "intake".to_owned();
    let Resent {
        account, second, ..
    } = service.resent(request).await;
    let again = SendInvitationRequest {
        return_url: Some("https://portal.acme.example/later".to_owned()),
        ..send_invitation(&account)
    };
    for _ in 0..2 {
        let (waiting, already_waiting) = service.send(again.clone()).await;
        assert!(already_waiting);
        assert_eq!(waiting.invitation_id, second.0.invitation_id);
        assert_eq!(waiting.form_id, "intake");
        assert_eq!(waiting.return_url, "https://portal.acme.example/later");
    }
    // The second time nothing changed.
    let actions = audited(&service, &account).await;
    assert_eq!(actions["invitation.updated"], 1);
    assert_eq!(actions["invitation.sent"], 2);
    let inspected = service.inspect(&second.1.token).await.unwrap();
    assert_eq!(inspected.form_id, "intake");
    assert_eq!(inspected.return_url, "https://portal.acme.example/later");
    let elsewhere = SendInvitationRequest {
        return_url: Some("https://evil.example/".to_owned()),
        ..again
    };
    let result = service.invitations.send_invitation(elsewhere).await;
    assert_invalid(result, &["return_url"]);
}

#[tokio::test]
async fn withdrawing_kills_every_link_of_the_account() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    for (index, named) in ["first", "second"].into_iter().enumerate() {
        let email = format!("{named}@example.org");
        let resent = service
            .resent(new_account(&organization, named, named, &email))
            .await;
        let invitations = [&resent.first.0, &resent.second.0];
        let revoked = service.revoke(invitations[index]).await.unwrap();
        assert_eq!(revoked.state(), InvitationState::Revoked);
        for link in [&resent.first.1, &resent.second.1] {
            assert_eq!(service.status(link).await, TokenStatus::Revoked);
            let result = service.activate(&link.token, PASSWORD).await;
            assert_refused(result, Code::FailedPrecondition, "TOKEN_REVOKED", &[]);
        }
        // The first email has left.
        let Some(Payload::InvitationRevoked(stopped)) = service.next_event().await.payload else {
            panic!("the second email is to be stopped");
        };
        assert_eq!(stopped.invitation_id, resent.second.0.invitation_id);
        let account_id = &resent.account.account_id;
        let account = service.account(&organization, account_id).await;
        assert_eq!(account.state(), AccountState::NotInvited);
        // Nothing blocks a new one.
        let (_, already_waiting) = service.send(send_invitation(&account)).await;
        assert!(!already_waiting);
        service.next_link().await;
    }
}

#[tokio::test]
async fn an_email_in_other_capitals_is_the_same_mailbox() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let account = service
        .create(new_account(
            &organization,
            "Nora",
            "Quill",
            "Nora.QUILL@example.org",
        ))
        .await;
    let link = service.next_link().await;
    let corrected = Account {
        email: Some("nora.quill@example.org".to_owned()),
        ..Default::default()
    };
    let updated = service
        .update(update_account(&account, &["email"], corrected))
        .await;
    assert_eq!(updated.email(), "nora.quill@example.org");
    let newest = updated.last_invitation.unwrap();
    assert_eq!(newest.invitation_id, link.event.invitation_id);
    assert_eq!(newest.state(), InvitationState::Queued);
    assert_eq!(service.invitations_of(&account).await.len(), 1);
    service.activate(&link.token, PASSWORD).await.unwrap();
}

#[tokio::test]
async fn a_newer_invitation_outlives_the_link_in_hand() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let account = service.create(ann(&organization)).await;
    let first = account.last_invitation.clone().unwrap();
    service.sent(&first).await;
    let shorter = Organization {
        settings: Some(OrganizationSettings {
            invitation_lifetime: Some(prost_types::Duration {
                seconds: 24 * 3600,
                nanos: 0,
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    service
        .update_organization(update_organization(
            &organization,
            &["settings.invitation_lifetime"],
            shorter,
        ))
        .await;
    // Otherwise the account would not be invited while the older link still works.
    let second = service.invite(&account).await;
    assert_eq!(second.expire_time, first.expire_time);
    service.revoke(&second).await.unwrap();
    let third = service.invite(&account).await;
    let lifetime = third.expire_time.unwrap().seconds - third.create_time.unwrap().seconds;
    assert_eq!(lifetime, 24 * 3600);
}

/// Replicas take over reports in any order while clients use the links and staff withdraw them: all wait for each
/// other, and none deadlocks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_and_changes_of_the_same_accounts_do_not_deadlock() {
    let mut service = Service::start().await;
    for round in 0..3 {
        let mut accounts = Vec::new();
        for index in 0..12 {
            let organization = service.organization().await;
            let email = format!("ann{round}{index}@example.org");
            let request = new_account(&organization, "Ann", "Lee", &email);
            accounts.push(service.resent(request).await);
        }
        let (first, second) = (
            accounts
                .iter()
                .map(|one| stored_report(&one.first.0, "DELIVERED", 9)),
            accounts
                .iter()
                .map(|one| stored_report(&one.second.0, "SENT", 9)),
        );
        let reports: Vec<_> = first.zip(second).flat_map(<[_; 2]>::from).collect();
        let replicas = (0..4).map(|replica| {
            let mut reports = reports.clone();
            if replica % 2 == 1 {
                reports.reverse();
            }
            reports.truncate(reports.len() - replica);
            let pool = service.pool.clone();
            async move {
                let mut tx = database::begin(&pool, Scope::Platform).await?;
                record_deliveries(&mut tx, &reports).await?;
                tx.commit().await
            }
        });
        let calls = accounts.iter().enumerate().map(async |(index, one)| {
            let _ = match index % 3 {
                0 => service
                    .activate(&one.first.1.token, PASSWORD)
                    .await
                    .map(drop),
                1 => service.revoke(&one.first.0).await.map(drop),
                _ => service
                    .activate(&one.second.1.token, PASSWORD)
                    .await
                    .map(drop),
            };
        });
        let (recorded, _) = join(join_all(replicas), join_all(calls)).await;
        for result in recorded {
            result.unwrap();
        }
        for one in &accounts {
            let open = service.states_of(&one.account).await;
            let open = open.iter().filter(|state| **state == InvitationState::Sent);
            assert!(open.count() <= 1);
        }
    }
    let deadlocks: i64 = sqlx::query_scalar(
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()",
    )
    .fetch_one(&mut service.admin().await)
    .await
    .unwrap();
    assert_eq!(deadlocks, 0);
}
