//! Events that the broker refuses, or that a lost connection stopped.

use usher_proto::topology::{NOTIFY_INVITATIONS, routing_key};

use super::harness::{DELIVERY, Outbox, TYPE};
use crate::support::{TestBus, event, events, soon};

/// Otherwise events that are refused for long, being the oldest, would be claimed first for ever.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_off_waits_a_quarter_of_its_age_and_lets_others_pass() {
    let messages = events(3, TYPE);
    let outbox = Outbox::with(&messages).await;
    assert_eq!(outbox.claim(2).await, messages[..2]);
    outbox.put_off(&messages[..2]).await;
    assert_eq!(outbox.claim(2).await, messages[2..], "the others wait");
    soon("claimed again", async {
        while outbox.claim(2).await != messages[..2] {}
    })
    .await;

    for (age, seconds) in [("0 s", 1.0), ("100 s", 25.0), ("1 year", 60.0)] {
        outbox
            .as_owner(&format!(
                "UPDATE outbox SET create_time = now() - interval '{age}'"
            ))
            .await;
        outbox.put_off(&messages).await;
        let wait: f64 = sqlx::query_scalar(
            "SELECT extract(epoch FROM max(retry_time - now()))::float8 FROM outbox",
        )
        .fetch_one(&mut *outbox.begin().await)
        .await
        .expect("wait");
        assert!(
            (seconds - 1.0..=seconds + 1.0).contains(&wait),
            "{age}: {wait} s"
        );
    }
    outbox.remove().await;
}

/// More events than one claim takes wait for a queue that refuses them.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_refuses_stops_no_other() {
    let test = TestBus::rabbitmq();
    let broker = test.broker.as_ref().expect("RabbitMQ");
    soon("declared", async {
        while test.bus.publish(&[event(DELIVERY)]).await != [Ok(())] {}
    })
    .await;
    let (_connection, channel) = broker.raw().await;
    broker.refuse(&channel, TYPE).await;
    let outbox = Outbox::with(&events(4_500, TYPE)).await;
    let healthy = events(10, DELIVERY);
    outbox.insert(&healthy, DELIVERY).await;
    let relay = outbox.relay(&test.bus);
    outbox.until_count(4_500).await;
    relay.stop().await;
    test.close().await;
    outbox.remove().await;
}

/// The oldest events would wait longest, although the broker has refused none of them.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_connection_stopped_is_not_put_off() {
    let test = TestBus::in_process();
    drop(test.bus.subscribe(NOTIFY_INVITATIONS)); // A consumer that is gone: what is published to it is lost.
    let lost = events(3, TYPE);
    let outbox = Outbox::with(&lost).await;
    let confirmed = event(routing_key::ACCOUNT_CREATED);
    outbox
        .insert(&[confirmed], routing_key::ACCOUNT_CREATED)
        .await;
    outbox
        .as_owner("UPDATE outbox SET create_time = now() - interval '1 day'")
        .await;
    let relay = outbox.relay(&test.bus);
    outbox.until_count(3).await;
    relay.stop().await;
    assert_eq!(outbox.claim(10).await, lost);
    test.close().await;
    outbox.remove().await;
}
