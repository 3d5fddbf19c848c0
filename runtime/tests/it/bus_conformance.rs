//! What both buses promise, so that the stand-in cannot lie.

use std::collections::HashSet;
use std::time::Duration;

use usher_proto::topology::{NOTIFY_INVITATIONS, routing_key};
use usher_runtime::bus::{EventBus, MAX_EVENT_BYTES, PublishError, Subscription};
use usher_runtime::trace_context::TraceContext;

use super::support::{DEAD, TestBus, event, events, publishing, receive, receive_one, soon};

/// Runs each check against both buses.
macro_rules! conformance {
    ($($check:ident),+ $(,)?) => {
        mod in_process {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $check() {
                let test = super::TestBus::in_process();
                super::$check(&test.bus).await;
                test.close().await;
            })+
        }
        mod rabbitmq {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $check() {
                let test = super::TestBus::rabbitmq();
                super::$check(&test.bus).await;
                test.close().await;
            })+
        }
    };
}

conformance!(
    delivers_the_event_as_it_was_published,
    keeps_events_for_the_first_subscription,
    forgets_what_was_acknowledged,
    delivers_again_what_was_dropped,
    delivers_again_what_a_gone_subscription_held,
    parks_dead_letters,
    refuses_what_is_no_event_and_takes_its_neighbours,
    accepts_events_that_nobody_waits_for,
    delivers_a_large_batch,
    shares_between_subscriptions,
    loses_nothing_when_receiving_is_cancelled,
    fails_after_close,
);

const TYPE: &str = routing_key::INVITATION_REQUESTED;

/// An event published now is the next one to come: nothing else was left in the queue.
async fn assert_nothing_else(bus: &EventBus, subscription: &mut Subscription) {
    let sentinel = event(TYPE);
    let published = publishing(bus, vec![sentinel.clone()]);
    let received = receive_one(subscription).await;
    assert_eq!(received.message.event_id, sentinel.event_id);
    received.ack().await.expect("ack");
    assert_eq!(published.await.expect("publish"), [Ok(())]);
}

async fn delivers_the_event_as_it_was_published(bus: &EventBus) {
    let mut subscription = bus.subscribe(NOTIFY_INVITATIONS);
    let mut sent = event(TYPE);
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    sent.trace_context = TraceContext(Some(traceparent.to_owned()));
    sent.body = (0..=255).cycle().take(200_000).collect();
    let published = publishing(bus, vec![sent.clone()]);
    let received = receive_one(&mut subscription).await;
    assert_eq!(received.message, sent);
    received.ack().await.expect("ack");
    assert_eq!(published.await.expect("publish"), [Ok(())]);
    assert!(bus.is_connected());
}

async fn keeps_events_for_the_first_subscription(bus: &EventBus) {
    let sent = event(TYPE);
    let published = publishing(bus, vec![sent.clone()]);
    tokio::task::yield_now().await;
    let mut subscription = bus.subscribe(NOTIFY_INVITATIONS);
    let received = receive_one(&mut subscription).await;
    assert_eq!(received.message, sent);
    received.ack().await.expect("ack");
    assert_eq!(published.await.expect("publish"), [Ok(())]);
}

async fn forgets_what_was_acknowledged(bus: &EventBus) {
    let mut subscription = bus.subscribe(NOTIFY_INVITATIONS);
    let published = publishing(bus, vec![event(TYPE)]);
    receive_one(&mut subscription)
        .await
        .ack()
        .await
        .expect("ack");
    assert_eq!(published.await.expect("publish"), [Ok(())]);
    drop(subscription);
    assert_nothing_else(bus, &mut bus.subscribe(NOTIFY_INVITATIONS)).await;
}

async fn delivers_again_what_was_dropped(bus: &EventBus) {
    let mut subscription = bus.subscribe(NOTIFY_INVITATIONS);
    let sent = event(TYPE);
    let published = publishing(bus, vec![sent.clone()]);
    for _ in 0..30 {
        let received = receive_one(&mut subscription).await;
        assert_eq!(received.message, sent);
        drop(received);
    }
    receive_one(&mut subscription)
        .await
        .ack()
        .await
        .expect("ack");
    assert_eq!(published.await.expect("publish"), [Ok(())]);
    assert_nothing_else(bus, &mut subscription).await;
}

async fn delivers_again_what_a_gone_subscription_held(bus: &EventBus) {
    let mut leaving = bus.subscribe(NOTIFY_INVITATIONS);
    let published = publishing(bus, events(2, TYPE));
    let held = receive_one(&mut leaving).await;
    let id = held.message.event_id;
    // Not before: whoever has subscribed first may be given both events.
    let mut staying = bus.subscribe(NOTIFY_INVITATIONS);
    drop(leaving);
    drop(held);
    let mut ids = HashSet::new();
    while ids.len() < 2 {
        let received = receive_one(&mut staying).await;
        ids.insert(received.message.event_id);
        received.ack().await.expect("ack");
    }
    assert!(ids.contains(&id));
    assert_eq!(published.await.expect("publish"), [Ok(()), Ok(())]);
}

async fn parks_dead_letters(bus: &EventBus) {
    let mut subscription = bus.subscribe(NOTIFY_INVITATIONS);
    let mut dead_letters = bus.subscribe(DEAD);
    let sent = event(TYPE);
    let published = publishing(bus, vec![sent.clone()]);
    let received = receive_one(&mut subscription).await;
    received.dead_letter("not an event");
    assert_eq!(published.await.expect("publish"), [Ok(())]);
    let parked = receive_one(&mut dead_letters).await;
    assert_eq!(parked.message, sent);
    assert_eq!(parked.dead_letter_reason.as_deref(), Some("not an event"));
    parked.ack().await.expect("ack");
    assert_nothing_else(bus, &mut subscription).await;
}

async fn refuses_what_is_no_event_and_takes_its_neighbours(bus: &EventBus) {
    let mut subscription = bus.subscribe(NOTIFY_INVITATIONS);
    let mut largest = event(TYPE);
    largest.body = vec![0; MAX_EVENT_BYTES];
    let mut larger = event(TYPE);
    larger.body = vec![0; MAX_EVENT_BYTES + 1];
    let published = publishing(bus, vec![event(&"x".repeat(256)), larger, largest.clone()]);
    let received = receive_one(&mut subscription).await;
    assert_eq!(received.message, largest);
    received.ack().await.expect("ack");
    assert_eq!(
        published.await.expect("publish"),
        [
            Err(PublishError::InvalidEventType),
            Err(PublishError::TooLarge),
            Ok(())
        ]
    );
}

async fn accepts_events_that_nobody_waits_for(bus: &EventBus) {
    let batch = events(3, routing_key::ACCOUNT_CREATED);
    assert_eq!(bus.publish(&batch).await, [Ok(()); 3]);
    assert_eq!(bus.publish(&[]).await, []);
}

async fn delivers_a_large_batch(bus: &EventBus) {
    let mut subscription = bus.subscribe(NOTIFY_INVITATIONS);
    let batch = events(2_000, TYPE);
    let mut missing: HashSet<_> = batch.iter().map(|message| message.event_id).collect();
    let published = publishing(bus, batch);
    while !missing.is_empty() {
        for received in receive(&mut subscription, 100).await {
            assert!(missing.remove(&received.message.event_id), "twice");
            received.ack().await.expect("ack");
        }
    }
    assert_eq!(published.await.expect("publish"), vec![Ok(()); 2_000]);
}

async fn shares_between_subscriptions(bus: &EventBus) {
    let mut first = bus.subscribe(NOTIFY_INVITATIONS);
    let mut second = bus.subscribe(NOTIFY_INVITATIONS);
    let batch = events(600, TYPE);
    let mut missing: HashSet<_> = batch.iter().map(|message| message.event_id).collect();
    let published = publishing(bus, batch);
    // Each holds one before either acknowledges: neither has the queue for itself.
    let held = [
        receive_one(&mut first).await,
        receive_one(&mut second).await,
    ];
    for received in held {
        assert!(missing.remove(&received.message.event_id));
        received.ack().await.expect("ack");
    }
    while !missing.is_empty() {
        let batch = soon("share", async {
            tokio::select! {
                batch = first.next_batch(7) => batch,
                batch = second.next_batch(7) => batch,
            }
        });
        for received in batch.await {
            assert!(missing.remove(&received.message.event_id), "twice");
            received.ack().await.expect("ack");
        }
    }
    assert_eq!(published.await.expect("publish"), vec![Ok(()); 600]);
}

async fn loses_nothing_when_receiving_is_cancelled(bus: &EventBus) {
    let mut subscription = bus.subscribe(NOTIFY_INVITATIONS);
    let batch = events(200, TYPE);
    let mut missing: HashSet<_> = batch.iter().map(|message| message.event_id).collect();
    let published = publishing(bus, batch);
    soon("all of it", async {
        while !missing.is_empty() {
            let next = subscription.next_batch(3);
            let Ok(batch) = tokio::time::timeout(Duration::from_micros(300), next).await else {
                continue;
            };
            for received in batch {
                missing.remove(&received.message.event_id);
                received.ack().await.expect("ack");
            }
        }
    })
    .await;
    assert_eq!(published.await.expect("publish"), vec![Ok(()); 200]);
}

async fn fails_after_close(bus: &EventBus) {
    bus.connected().await;
    bus.close().await;
    assert!(!bus.is_connected());
    let results = soon("an answer", bus.publish(&[event(TYPE)])).await;
    assert!(results[0].is_err());
}
