//! What stops some calls and must not stop the others: a lock that is held, a database that does not answer.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection as _};
use tokio::task::JoinSet;
use tonic::Code;
use usher_proto::{
    account::v1::{Account, CreateAccountRequest, GetAccountRequest, UpdateAccountRequest},
    event::v1::DeliveryState,
};
use usher_runtime::database::{Scope, begin};
use usher_tests::{
    proxy::{Mode, Proxy},
    refusal::Refusal,
};
use uuid::Uuid;

use crate::support::{
    CALL_CONNECTIONS, PASSWORD, Service, assert_refused, database, new_account, refusal, report_of,
    until, update_account, within,
};

fn change_plan(account: &Account) -> UpdateAccountRequest {
    let new = Account {
        plan: "pro".to_owned(),
        ..Default::default()
    };
    update_account(account, &["plan"], new)
}

/// Locks an account until the end of the transaction.
fn lock(account: &Account) -> AssertSqlSafe<String> {
    let account_id = Uuid::try_parse(&account.account_id).unwrap();
    AssertSqlSafe(format!(
        "SELECT FROM accounts WHERE account_id = '{account_id}' FOR UPDATE"
    ))
}

impl Service {
    /// Waits until so many statements wait for a lock.
    async fn until_lock_is_waited_for(&self, statements: usize) {
        let mut admin = self.admin().await;
        until("statements wait for the lock", async || {
            let waiting: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND wait_event_type = 'Lock'",
            )
            .fetch_one(&mut admin)
            .await
            .unwrap();
            usize::try_from(waiting).unwrap() >= statements
        })
        .await;
    }

    /// Starts to change an account, in the background.
    fn start_changes(&self, account: &Account, calls: usize) -> JoinSet<Result<(), tonic::Status>> {
        (0..calls)
            .map(|_| {
                let (mut accounts, request) = (self.accounts.clone(), change_plan(account));
                async move { accounts.update_account(request).await.map(drop) }
            })
            .collect()
    }
}

#[tokio::test]
async fn calls_that_wait_for_a_lock_stop_neither_others_nor_background_work() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let locked = service
        .create(new_account(&organization, "Ann", "Lee", ""))
        .await;
    let invited = service
        .create(new_account(&organization, "Bo", "Diaz", "bo@example.org"))
        .await;
    let invitation = invited.last_invitation.clone().unwrap();
    service.next_link().await;
    let other = service.organization().await;
    until("ready", async || service.is_ready().await).await;

    let mut holder = service.admin().await;
    let mut holding = holder.begin().await.unwrap();
    sqlx::query(lock(&locked))
        .execute(&mut *holding)
        .await
        .unwrap();
    let mut waiting = service.start_changes(&locked, CALL_CONNECTIONS + 8);
    service.until_lock_is_waited_for(CALL_CONNECTIONS / 2).await;

    // The organization has no connection left. Others have theirs.
    for name in ["Ann", "Bo", "Cy", "Di"] {
        service.create(new_account(&other, name, "Berg", "")).await;
    }
    // And so have workers.
    let sent = report_of(&invitation, DeliveryState::Sent, 3);
    service.report(&organization, sent).await;
    let mut admin = service.admin().await;
    until("the report is recorded", async || {
        sqlx::query_scalar("SELECT delivery_state = 'SENT' FROM invitations")
            .fetch_one(&mut admin)
            .await
            .unwrap()
    })
    .await;
    assert!(service.is_ready().await);
    assert!(waiting.try_join_next().is_none(), "all calls still wait");

    // Other calls of the organization get their turn while the lock is held.
    let get = GetAccountRequest {
        organization_id: organization.clone(),
        account_id: invited.account_id.clone(),
    };
    let mut accounts = service.accounts.clone();
    until("an answer", async || {
        accounts.get_account(get.clone()).await.is_ok()
    })
    .await;
    service
        .create(new_account(&organization, "Cy", "Fox", "cy@example.org"))
        .await;
    let link = service.next_link().await;
    assert_eq!(link.event.recipient, "cy@example.org");
    assert!(service.is_ready().await);

    // Those that waited are told to come back.
    let mut locked_out = 0;
    while let Some(result) = within(waiting.join_next()).await {
        let message = assert_unavailable(result.unwrap()).message;
        // Those that get no connection in time are told that there are too many of them.
        let is_lock = message.starts_with("another call holds what this one needs; repeat");
        locked_out += usize::from(is_lock);
    }
    assert!(locked_out >= CALL_CONNECTIONS / 2, "{locked_out}");
    holding.rollback().await.unwrap();
    assert_eq!(service.update(change_plan(&locked)).await.plan, "pro");
    service.stop().await;
}

#[tokio::test]
async fn a_database_that_falls_silent_costs_each_call_a_bounded_time() {
    let database = database().await;
    let proxy = Proxy::in_front_of(&database.service_url()).await.unwrap();
    let settings = ["--request-timeout", "12s"];
    let mut service = Service::start_on(database, proxy.url(), &settings).await;
    let organization = service.organization().await;
    let client = service.activated(&organization).await;
    let locked = service
        .create(new_account(&organization, "Bo", "Diaz", ""))
        .await;
    until("ready", async || service.is_ready().await).await;

    // One call is in the middle of its transaction.
    let mut holder = service.admin().await;
    let mut holding = holder.begin().await.unwrap();
    sqlx::query(lock(&locked))
        .execute(&mut *holding)
        .await
        .unwrap();
    let mut interrupted = service.start_changes(&locked, 1);
    service.until_lock_is_waited_for(1).await;
    proxy.set(Mode::Hold);
    proxy.silence();
    holding.rollback().await.unwrap();

    // More calls than connections, of several kinds.
    let started = Instant::now();
    let create = CreateAccountRequest {
        request_id: Uuid::now_v7().to_string(),
        ..new_account(&organization, "Cy", "Fox", "cy@example.org")
    };
    let mut calls = service.start_changes(&client, CALL_CONNECTIONS);
    for _ in 0..4 {
        let (mut accounts, create) = (service.accounts.clone(), create.clone());
        calls.spawn(async move { accounts.create_account(create).await.map(drop) });
    }
    let login = service.authenticate(&organization, "ann@example.org", PASSWORD);
    let login = async {
        assert_unavailable(login.await);
    };
    let others = async {
        while let Some(result) = within(calls.join_next()).await {
            assert_unavailable(result.unwrap());
        }
    };
    tokio::join!(login, others);
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
    until("not ready", async || !service.is_ready().await).await;
    // Whether it was carried out is not known.
    let result = within(interrupted.join_next()).await.unwrap().unwrap();
    assert_refused(result, Code::DeadlineExceeded, "DEADLINE_EXCEEDED", &[]);

    let forwarded = Instant::now();
    proxy.set(Mode::Forward);
    // Repeated with its request id, as the refusal said.
    let mut accounts = service.accounts.clone();
    until("calls succeed again", async || {
        let result = accounts.create_account(create.clone()).await;
        result.is_ok() || refusal(result).code != Code::Unavailable
    })
    .await;
    assert!(
        forwarded.elapsed() < Duration::from_secs(5),
        "{:?}",
        forwarded.elapsed()
    );
    let created = service.create(create).await;
    let link = service.next_link().await;
    assert_eq!(link.event.account_id, created.account_id);
    until("ready again", async || service.is_ready().await).await;

    // No dead connection is left, and none of their places is lost.
    until("the dead connections are closed", async || {
        proxy.swallowing() == 0
    })
    .await;
    let mut open = Vec::new();
    for _ in 0..CALL_CONNECTIONS {
        open.push(begin(&service.pool, Scope::Platform).await.unwrap());
    }
    drop(open);
    service.stop().await;
}

/// Asserts that a call is refused because of the database, or because calls like it use their connections up.
fn assert_unavailable<T: std::fmt::Debug>(result: Result<T, tonic::Status>) -> Refusal {
    let refused = refusal(result);
    let reasons = ["DEPENDENCY_UNAVAILABLE", "OVERLOADED"];
    assert_eq!(refused.code, Code::Unavailable, "{refused:?}");
    assert!(reasons.contains(&&*refused.reason), "{refused:?}");
    assert!(refused.details.retry_info().is_some(), "{refused:?}");
    refused
}
