//! The end of a relay.

use super::harness::{Outbox, TYPE};
use crate::support::{Broker, TestBus, events, soon};

#[tokio::test(flavor = "multi_thread")]
async fn stop_empties_the_outbox_first() {
    let test = TestBus::rabbitmq();
    soon("connected", test.bus.connected()).await;
    let outbox = Outbox::with(&events(2_200, TYPE)).await;
    let relay = outbox.relay(&test.bus);
    relay.stop().await;
    assert_eq!(outbox.count().await, 0);
    test.close().await;
    outbox.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_ends_also_while_the_broker_is_away() {
    let broker = Broker::new();
    let bus = broker.bus("amqp://127.0.0.1:1/%2f"); // Nobody listens on port 1.
    let outbox = Outbox::with(&events(3, TYPE)).await;
    let relay = outbox.relay(&bus);
    relay.stop().await;
    assert_eq!(outbox.count().await, 3);
    bus.close().await;
    outbox.remove().await;
}
