//! What is published is deleted, and nothing else.

use std::time::{Duration, Instant};

use usher_proto::topology::{NOTIFY_INVITATIONS, routing_key};

use super::harness::{Outbox, TYPE, consume};
use crate::support::{TestBus, event, events, receive, receive_one};

#[tokio::test(flavor = "multi_thread")]
async fn relays_more_than_a_batch() {
    let test = TestBus::rabbitmq();
    let messages = events(4_700, TYPE);
    let outbox = Outbox::with(&messages).await;
    let relay = outbox.relay(&test.bus);
    outbox.until_count(0).await;
    let mut subscription = test.bus.subscribe(NOTIFY_INVITATIONS);
    let mut received = 0;
    while received < messages.len() {
        for delivery in receive(&mut subscription, 200).await {
            received += 1;
            delivery.ack().await.expect("ack");
        }
    }
    relay.stop().await;
    test.close().await;
    outbox.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deletes_nothing_that_is_not_confirmed() {
    let test = TestBus::in_process();
    drop(test.bus.subscribe(NOTIFY_INVITATIONS)); // A consumer that is gone: publishing fails at once.
    let messages = events(20, TYPE);
    let outbox = Outbox::with(&messages).await;
    let nobody_waits = event(routing_key::ACCOUNT_CREATED);
    outbox
        .insert(&[nobody_waits], routing_key::ACCOUNT_CREATED)
        .await;
    let relay = outbox.relay(&test.bus);
    // Only what was confirmed goes, whatever else is tried.
    outbox.until_count(20).await;

    let counts = consume(&test.bus);
    outbox.until_count(0).await;
    assert_eq!(counts.now().len(), 20);
    relay.stop().await;
    test.close().await;
    outbox.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_publish_and_delete_it_publishes_again() {
    for test in [TestBus::in_process(), TestBus::rabbitmq()] {
        let messages = events(40, TYPE);
        let outbox = Outbox::with(&messages).await;
        let counts = consume(&test.bus);
        // It "dies" when all is published: the delete fails as long as it lives.
        outbox.break_on("DELETE").await;
        let relay = outbox.relay(&test.bus);
        outbox.until_failed(1).await;
        relay.kill().await;
        outbox.repair().await;
        assert_eq!(outbox.count().await, 40, "nothing is lost");

        let relay = outbox.relay(&test.bus);
        outbox.until_count(0).await;
        // More often if the first one tried again before it died.
        counts
            .until("every event at least twice", |counts| {
                let is_repeated = |id| counts.get(id).is_some_and(|count| *count >= 2);
                messages
                    .iter()
                    .all(|message| is_repeated(&message.event_id))
            })
            .await;
        relay.stop().await;
        test.close().await;
        outbox.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn survives_a_database_that_is_away() {
    let test = TestBus::in_process();
    let outbox = Outbox::empty().await;
    outbox.break_on("DELETE").await;
    let relay = outbox.relay(&test.bus);
    let counts = consume(&test.bus);
    outbox.insert(&[event(TYPE)], TYPE).await;
    outbox.until_failed(3).await;
    outbox.repair().await;
    outbox.until_count(0).await;
    assert_eq!(counts.now().len(), 1);
    relay.stop().await;
    test.close().await;
    outbox.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn is_woken_by_a_commit() {
    let test = TestBus::in_process();
    let outbox = Outbox::empty().await;
    let relay = outbox.relay(&test.bus);
    let mut subscription = test.bus.subscribe(NOTIFY_INVITATIONS);
    let started = Instant::now();
    for _ in 0..40 {
        outbox.insert(&[event(TYPE)], TYPE).await;
        relay.wake.notify();
        receive_one(&mut subscription)
            .await
            .ack()
            .await
            .expect("ack");
        outbox.until_count(0).await;
    }
    // By polling alone it would take 30 s or more.
    assert!(started.elapsed() < Duration::from_secs(15));
    relay.stop().await;
    test.close().await;
    outbox.remove().await;
}
