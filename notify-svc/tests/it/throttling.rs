//! Limits delay emails, visibly and exactly, and never drop them.

use time::Duration;
use usher_proto::{event::v1::DeliveryState, notify::v1 as proto};

use crate::{
    requests::{Request, instant},
    support::{Service, eventually},
};

#[tokio::test]
async fn the_sixth_email_waits_at_an_exact_time_and_others_do_not() {
    let service = Service::start(&["--recipient-limit=5/24h", "--recipient-gap=0s"]).await;
    let requests: Vec<_> = (0..6).map(|_| service.request("Zoe@Example.org")).collect();
    for request in &requests {
        service.publish(request.message()).await;
    }
    let sixth = service
        .reaches(&requests[5], proto::DeliveryState::Throttled)
        .await;
    let first = service
        .reaches(&requests[0], proto::DeliveryState::Sent)
        .await;
    let slot = instant(sixth.next_attempt_time);
    // One fifth of a day after the first, to the microsecond.
    assert_eq!(slot, instant(first.create_time) + Duration::hours(24) / 5);

    let other = service.request("other@example.org");
    service.publish(other.message()).await;
    service.reaches(&other, proto::DeliveryState::Sent).await;

    assert_eq!(service.smtp.taken_for("Zoe@example.org").len(), 5);
    eventually("the time is published", async || {
        service.published(&requests[5]) == [DeliveryState::Throttled]
    })
    .await;
    let changes = service.changes.lock().unwrap().clone();
    let (change, _) = changes
        .iter()
        .find(|(change, _)| change.invitation_id == requests[5].requested.invitation_id)
        .unwrap();
    assert_eq!(instant(change.throttled_until), slot);
    service.stop().await;
}

#[tokio::test]
async fn emails_to_one_recipient_keep_their_distance() {
    let service = Service::start(&["--recipient-gap=60s"]).await;
    let requests: Vec<_> = (0..3).map(|_| service.request("zoe@example.org")).collect();
    let messages: Vec<_> = requests.iter().map(Request::message).collect();
    service.publish_all(&messages).await;
    let first = service
        .reaches(&requests[0], proto::DeliveryState::Sent)
        .await;
    let second = service
        .reaches(&requests[1], proto::DeliveryState::Throttled)
        .await;
    let third = service
        .reaches(&requests[2], proto::DeliveryState::Throttled)
        .await;
    // The events may have come in several transactions.
    let gap = instant(second.next_attempt_time) - instant(first.create_time);
    assert!(
        (gap - Duration::seconds(60)).abs() < Duration::MILLISECOND,
        "{gap}"
    );
    assert_eq!(
        instant(third.next_attempt_time) - instant(second.next_attempt_time),
        Duration::seconds(60)
    );
    service.stop().await;
}

#[tokio::test]
async fn a_throttled_email_goes_when_its_time_has_come() {
    let service = Service::start(&["--recipient-limit=1/1s", "--recipient-gap=0s"]).await;
    let requests: Vec<_> = (0..3).map(|_| service.request("zoe@example.org")).collect();
    for request in &requests {
        service.publish(request.message()).await;
    }
    let mut sent_times = Vec::new();
    for request in &requests {
        let delivery = service.reaches(request, proto::DeliveryState::Sent).await;
        sent_times.push(instant(delivery.sent_time));
    }
    let whole = sent_times[2] - instant(service.delivery(&requests[0]).await.unwrap().create_time);
    assert!(whole >= Duration::seconds(2), "{whole}");
    assert!(whole < Duration::seconds(4), "{whole}");
    service.stop().await;
}

#[tokio::test]
async fn the_limit_survives_a_restart() {
    let limit = &["--recipient-limit=1/24h", "--recipient-gap=0s"];
    let service = Service::start(limit).await;
    let first = service.request("zoe@example.org");
    service.publish(first.message()).await;
    service.reaches(&first, proto::DeliveryState::Sent).await;
    let service = service.restart(limit).await;
    let second = service.request("zoe@example.org");
    service.publish(second.message()).await;
    service
        .reaches(&second, proto::DeliveryState::Throttled)
        .await;
    service.stop().await;
}

#[tokio::test]
async fn shared_limits_space_emails_out() {
    let service = Service::start(&["--organization-limit=2/1s"]).await;
    let requests: Vec<_> = (0..6)
        .map(|n| service.request(&format!("client{n}@example.org")))
        .collect();
    let messages: Vec<_> = requests.iter().map(Request::message).collect();
    service.publish_all(&messages).await;
    let mut sent_times = Vec::new();
    for request in &requests {
        sent_times.push(instant(
            service
                .reaches(request, proto::DeliveryState::Sent)
                .await
                .sent_time,
        ));
    }
    sent_times.sort();
    // Two at once, and then one every half second.
    let whole = sent_times[5] - sent_times[0];
    assert!(whole >= Duration::milliseconds(1_900), "{whole}");
    assert_eq!(service.smtp.taken().len(), 6);
    service.stop().await;
}
