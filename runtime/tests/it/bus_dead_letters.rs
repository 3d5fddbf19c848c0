//! What others may put into a queue of RabbitMQ, and how it gets out of the way.

use lapin::message::BasicGetMessage;
use lapin::options::{BasicGetOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel};
use usher_proto::topology::{DEAD_LETTER_REASON_HEADER, NOTIFY_INVITATIONS, routing_key};
use usher_runtime::bus::{EventBus, MAX_EVENT_BYTES, Received};
use uuid::Uuid;

use super::support::{Broker, DEAD, amqp_url, event, receive_one, soon};

const INVITATION: &str = routing_key::INVITATION_REQUESTED;

/// A bus whose queues are declared.
async fn bus(broker: &Broker) -> EventBus {
    let bus = broker.bus(&amqp_url());
    let published = bus.publish(&[event(routing_key::DELIVERY_CHANGED)]).await;
    assert_eq!(published, [Ok(())]);
    bus
}

/// Puts a message into the queue past the bus.
async fn put(broker: &Broker, channel: &Channel, body: &[u8], properties: BasicProperties) {
    channel
        .basic_publish(
            "".into(),
            broker.name(NOTIFY_INVITATIONS.name).into(),
            BasicPublishOptions::default(),
            body,
            properties,
        )
        .await
        .expect("publish");
}

fn headers(name: &str, value: &str) -> FieldTable {
    let mut headers = FieldTable::default();
    headers.insert(name.into(), AMQPValue::LongString(value.into()));
    headers
}

/// Waits for a message, and takes it.
async fn get(channel: &Channel, queue: &str) -> BasicGetMessage {
    loop {
        let options = BasicGetOptions { no_ack: true };
        let got = channel.basic_get(queue.into(), options).await;
        if let Some(message) = got.expect("get") {
            return message;
        }
    }
}

fn reason(parked: &Received) -> &str {
    parked.dead_letter_reason.as_deref().expect("a reason")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_carries_no_id_is_parked_whatever_its_headers() {
    let broker = Broker::new();
    let bus = bus(&broker).await;
    let mut subscription = bus.subscribe(NOTIFY_INVITATIONS);
    let (_connection, channel) = broker.raw().await;
    let dead = broker.name(NOTIFY_INVITATIONS.dead_letter_queue);
    // As large as a frame lets it be. With anything more in the frame, the connection would end.
    let hostile = BasicProperties::default()
        .with_message_id("no-uuid".into())
        .with_headers(headers("traceparent", &"0".repeat(130_980)));
    put(&broker, &channel, b"who am I", hostile).await;
    put(&broker, &channel, b"nor I", BasicProperties::default()).await;
    let good = event(INVITATION);
    assert_eq!(bus.publish(std::slice::from_ref(&good)).await, [Ok(())]);
    let received = receive_one(&mut subscription).await;
    assert_eq!(received.message, good);
    received.ack().await.expect("ack");

    let mut bodies = Vec::new();
    while bodies.len() < 2 {
        // Not over the bus, which would park them again, as they carry no id.
        let parked = soon("a dead letter", get(&channel, &dead)).await;
        let headers = parked.properties.headers().as_ref().expect("headers");
        let reason = AMQPValue::LongString("the property message_id is not a UUID".into());
        assert_eq!(
            headers.inner().get(DEAD_LETTER_REASON_HEADER),
            Some(&reason)
        );
        assert!(!headers.contains_key("traceparent"));
        bodies.push(parked.delivery.data);
    }
    bodies.sort_unstable();
    assert_eq!(bodies, [b"nor I".to_vec(), b"who am I".to_vec()]);
    bus.close().await;
    broker.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_larger_than_an_event_is_parked_without_its_body() {
    let broker = Broker::new();
    let bus = bus(&broker).await;
    let mut subscription = bus.subscribe(NOTIFY_INVITATIONS);
    let (_connection, channel) = broker.raw().await;
    let event_id = Uuid::now_v7();
    let properties = || BasicProperties::default().with_message_id(event_id.to_string().into());
    put(
        &broker,
        &channel,
        &vec![7; MAX_EVENT_BYTES + 1],
        properties(),
    )
    .await;
    put(&broker, &channel, &vec![7; MAX_EVENT_BYTES], properties()).await;
    let received = receive_one(&mut subscription).await;
    assert_eq!(received.message.body.len(), MAX_EVENT_BYTES);
    received.ack().await.expect("ack");

    let mut dead = bus.subscribe(DEAD);
    let parked = receive_one(&mut dead).await;
    assert_eq!(parked.message.event_id, event_id);
    assert_eq!(parked.message.body, b"");
    assert!(
        reason(&parked).contains("262145 bytes"),
        "{}",
        reason(&parked)
    );
    parked.ack().await.expect("ack");
    bus.close().await;
    broker.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_reason_is_cut() {
    let broker = Broker::new();
    let bus = bus(&broker).await;
    let mut subscription = bus.subscribe(NOTIFY_INVITATIONS);
    assert_eq!(bus.publish(&[event(INVITATION)]).await, [Ok(())]);
    let received = receive_one(&mut subscription).await;
    received.dead_letter(&"ü€".repeat(100_000));
    let parked = receive_one(&mut bus.subscribe(DEAD)).await;
    assert!((1_020..=1_024).contains(&reason(&parked).len()));
    parked.ack().await.expect("ack");
    bus.close().await;
    broker.remove().await;
}

/// A dead-letter queue that refuses everything stops neither the other events nor floods the broker: what
/// cannot be parked is held, and parked when that is possible.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_parked_is_held_until_it_can_be() {
    let broker = Broker::new();
    let bus = bus(&broker).await;
    let mut subscription = bus.subscribe(NOTIFY_INVITATIONS);
    let poison = event(INVITATION);
    assert_eq!(bus.publish(std::slice::from_ref(&poison)).await, [Ok(())]);
    let received = receive_one(&mut subscription).await;
    assert_eq!(received.message, poison);

    broker
        .delete_queue(NOTIFY_INVITATIONS.dead_letter_queue)
        .await;
    let (_connection, channel) = broker.raw().await;
    let mut full = headers("x-overflow", "reject-publish");
    full.insert("x-max-length".into(), AMQPValue::LongInt(0));
    channel
        .queue_declare(
            broker.name(NOTIFY_INVITATIONS.dead_letter_queue).into(),
            QueueDeclareOptions::durable(),
            full,
        )
        .await
        .expect("declare");
    received.dead_letter("poison");
    // Its channel must be declared anew after each refusal, which this queue prevents. So the good events do
    // not come over the bus.
    for _ in 0..100 {
        let good = event(INVITATION);
        let properties =
            BasicProperties::default().with_message_id(good.event_id.to_string().into());
        put(&broker, &channel, &good.body, properties).await;
        let received = receive_one(&mut subscription).await;
        assert_eq!(received.message.event_id, good.event_id, "given back");
        received.ack().await.expect("ack");
    }

    broker
        .delete_queue(NOTIFY_INVITATIONS.dead_letter_queue)
        .await;
    let parked = soon("the repair", async {
        receive_one(&mut bus.subscribe(DEAD)).await
    })
    .await;
    assert_eq!(parked.message, poison);
    parked.ack().await.expect("ack");
    bus.close().await;
    broker.remove().await;
}
