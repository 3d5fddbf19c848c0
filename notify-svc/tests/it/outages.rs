//! The database is away for a while.

use usher_proto::{event::v1::DeliveryState, notify::v1 as proto};
use usher_tests::in_own_process;

use crate::{
    scripted_smtp::{At, Fault},
    support::{Service, eventually},
};

#[tokio::test]
async fn events_wait_for_the_database() {
    if !in_own_process("outages::events_wait_for_the_database").await {
        return;
    }
    let service = Service::start(&[]).await;
    service.database.cut_off().await.unwrap();
    let request = service.request("zoe@example.org");
    let (bus, message) = (service.bus.clone(), request.message());
    // Resolves when it is acknowledged: not before it is stored.
    let published = tokio::spawn(async move { bus.publish(&[message]).await });
    eventually("the intake notices", async || {
        crate::telemetry::logged("events cannot be stored")
    })
    .await;
    assert!(!published.is_finished());
    service.database.connect_again().await.unwrap();
    published.await.unwrap()[0].unwrap();
    service.reaches(&request, proto::DeliveryState::Sent).await;
    assert_eq!(service.smtp.taken_count(), 1);
    service.stop().await;
}

#[tokio::test]
async fn an_answer_of_the_relay_outlasts_an_outage_of_the_database() {
    if !in_own_process("outages::an_answer_of_the_relay_outlasts_an_outage_of_the_database").await {
        return;
    }
    let service = Service::start(&["--smtp-data-timeout=20s", "--send-lease=1m"]).await;
    service.smtp.fail_once(At::Dot, Fault::Wait);
    let request = service.request("zoe@example.org");
    service.publish(request.message()).await;
    eventually("the email is with the relay", async || {
        !service.smtp.has_faults_left()
    })
    .await;
    service.database.cut_off().await.unwrap();
    service.smtp.go_on();
    eventually("the sender notices", async || {
        crate::telemetry::logged("outcomes cannot be recorded")
    })
    .await;
    service.database.connect_again().await.unwrap();
    let delivery = service.reaches(&request, proto::DeliveryState::Sent).await;
    assert_eq!(delivery.attempt_count, 1);
    assert_eq!(service.smtp.taken_count(), 1);
    eventually("its states are published", async || {
        service.published(&request) == [DeliveryState::Queued, DeliveryState::Sent]
    })
    .await;
    service.stop().await;
}

#[tokio::test]
async fn the_log_names_the_relay_that_cannot_be_used() {
    let service = Service::start(&[]).await;
    for (at, fault, recipient) in [
        (
            At::Connect,
            Fault::Reply("421 4.3.2 too busy"),
            "ann@example.org",
        ),
        (
            At::Mail,
            Fault::Reply("530 5.7.0 log in first"),
            "zoe@example.org",
        ),
    ] {
        service.smtp.fail_once(at, fault);
        let request = service.request(recipient);
        service.publish(request.message()).await;
        service.reaches(&request, proto::DeliveryState::Sent).await;
    }
    let url = service.smtp.url();
    for reply in ["421 4.3.2", "530 5.7.0"] {
        let named = format!(r#""relay":"{url}","reason":"the relay answered {reply}""#);
        assert!(crate::telemetry::logged(&named), "{named}");
    }
    service.stop().await;
}
