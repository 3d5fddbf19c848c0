//! The same over a real broker.

use std::{collections::HashMap, env};

use secrecy::SecretString;
use usher_proto::notify::v1 as proto;
use usher_runtime::bus::EventBus;
use uuid::Uuid;

use crate::{
    requests::Request,
    support::{Service, database, eventually},
};

#[tokio::test]
async fn a_hundred_emails_over_rabbitmq_with_poison_among_them() {
    let url = env::var("AMQP_URL").expect("set AMQP_URL to a RabbitMQ server (make test does)");
    let prefix = format!("test-{}-", Uuid::now_v7().simple());
    let bus =
        EventBus::rabbitmq_with_prefix(&SecretString::from(url), "notify-test", &prefix).unwrap();
    bus.connected().await;
    let service = Service::start_on(database().await, bus, &[]).await;
    eventually("the queues are declared", async || {
        let probe = service.request("probe@example.org").message();
        service
            .bus
            .publish(&[probe])
            .await
            .iter()
            .all(Result::is_ok)
    })
    .await;

    let requests: Vec<_> = (0..100)
        .map(|n| service.request(&format!("client{n}@example.org")))
        .collect();
    let mut messages: Vec<_> = requests.iter().map(Request::message).collect();
    let mut reasons = HashMap::new();
    for index in (0..messages.len()).step_by(10) {
        let mut poison = messages[index].clone();
        poison.event_id = Uuid::now_v7();
        poison.body.truncate(10);
        reasons.insert(
            poison.event_id,
            "the body is not a usher.event.v1.Event".to_owned(),
        );
        messages.push(poison);
        messages.push(messages[index].clone());
    }
    service.publish_all(&messages).await;
    for request in &requests {
        service.reaches(request, proto::DeliveryState::Sent).await;
    }
    for request in &requests {
        assert_eq!(
            service.smtp.taken_for(&request.requested.recipient).len(),
            1
        );
    }
    assert_eq!(service.dead_letters(reasons.len()).await, reasons);
    service.stop().await;
}
