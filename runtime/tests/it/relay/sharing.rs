//! Several relays on one outbox.

use secrecy::SecretString;
use usher_runtime::database;
use usher_runtime::database::Scope;
use usher_runtime::outbox;

use super::harness::{Outbox, TYPE, consume};
use crate::support::{TestBus, events};

/// Whoever dies while it publishes, its connection ends: the others take its events at once, and no sooner.
#[tokio::test(flavor = "multi_thread")]
async fn another_relay_takes_the_events_of_one_that_died() {
    let test = TestBus::in_process();
    let messages = events(3, TYPE);
    let outbox = Outbox::with(&messages).await;
    // A relay that holds the first two.
    let pool = database::connect(
        &SecretString::from(outbox.database.service_url()),
        "account_service",
        1,
    )
    .expect("pool");
    let mut dying = database::begin(&pool, Scope::Platform)
        .await
        .expect("begin");
    let held = outbox::claim(&mut dying, 2, i64::MAX).await.expect("claim");
    assert_eq!(held, messages[..2]);
    let backend: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(&mut *dying)
        .await
        .expect("backend");

    let counts = consume(&test.bus);
    let relay = outbox.relay(&test.bus);
    outbox.until_count(2).await;
    assert!(!counts.now().contains_key(&messages[0].event_id));

    let mut admin = outbox.database.admin().await.expect("admin");
    sqlx::query("SELECT pg_terminate_backend($1)")
        .bind(backend)
        .execute(&mut admin)
        .await
        .expect("terminate");
    outbox.until_count(0).await;
    assert_eq!(counts.now().len(), 3);
    drop(dying);
    pool.close().await;
    relay.stop().await;
    test.close().await;
    outbox.remove().await;
}

/// With a full outbox two transactions take turns; several relays too. Nobody publishes what another holds.
#[tokio::test(flavor = "multi_thread")]
async fn each_event_goes_out_once_whoever_claims() {
    let test = TestBus::rabbitmq();
    let messages = events(9_000, TYPE);
    let outbox = Outbox::with(&messages).await;
    let counts = consume(&test.bus);
    let relays = [outbox.relay(&test.bus), outbox.relay(&test.bus)];
    outbox.until_count(0).await;
    counts
        .until("every event", |counts| counts.len() >= messages.len())
        .await;
    for relay in relays {
        relay.stop().await;
    }
    // Behind everything that they published: what came twice has come by then.
    let last = events(1, TYPE);
    for result in test.bus.publish(&last).await {
        result.expect("published");
    }
    counts
        .until("the last event", |counts| {
            counts.contains_key(&last[0].event_id)
        })
        .await;
    assert!(counts.now().values().all(|&count| count == 1));
    test.close().await;
    outbox.remove().await;
}
