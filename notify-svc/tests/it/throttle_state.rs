//! `GetThrottle`: when the next email to a recipient could go.

use std::collections::BTreeMap;

use time::{Duration, OffsetDateTime};
use tonic::Status;
use usher_proto::notify::v1::{
    self as proto, GetThrottleRequest, delivery_service_client::DeliveryServiceClient,
};
use usher_tests::refusal::assert_invalid;

use crate::{
    requests::{Request, instant, now},
    support::Service,
};

/// The next slot, and those of the single limits.
type State = (OffsetDateTime, BTreeMap<String, OffsetDateTime>);

async fn throttle(service: &Service, like: &Request, recipient: &str) -> Result<State, Status> {
    let request = GetThrottleRequest {
        organization_id: like.organization_id.to_string(),
        recipient: recipient.to_owned(),
    };
    let mut client = DeliveryServiceClient::new(service.channel.clone());
    let response = client.get_throttle(request).await?.into_inner();
    let limits = response.limits.into_iter();
    let limits = limits.map(|limit| (limit.name, instant(limit.next_slot_time)));
    Ok((instant(response.next_slot_time), limits.collect()))
}

#[tokio::test]
async fn the_time_is_the_one_that_the_next_email_gets() {
    let limits = [
        "--recipient-limit=2/24h",
        "--recipient-gap=60s",
        "--organization-limit=3/1h",
    ];
    let service = Service::start(&limits).await;
    let request = service.request("zoe@example.org");
    let (free, limits) = throttle(&service, &request, "zoe@example.org")
        .await
        .unwrap();
    assert!((free - now()).abs() < Duration::seconds(10));
    let names: Vec<_> = limits.keys().map(String::as_str).collect();
    assert_eq!(names, ["organization", "recipient", "recipient_gap"]);

    service.publish(request.message()).await;
    let sent = service.reaches(&request, proto::DeliveryState::Sent).await;
    let (next, limits) = throttle(&service, &request, "Zoe@example.org")
        .await
        .unwrap();
    let wait = next - instant(sent.sent_time);
    assert!(
        (wait - Duration::seconds(60)).abs() < Duration::seconds(1),
        "{wait}"
    );
    assert_eq!(limits["recipient_gap"], next);
    assert!(limits["recipient"] < next);

    let second = service.request("zoe@example.org");
    service.publish(second.message()).await;
    let waiting = service
        .reaches(&second, proto::DeliveryState::Throttled)
        .await;
    let shift = instant(waiting.next_attempt_time) - next;
    assert!(shift.abs() < Duration::SECOND, "{shift}");
    let (next, limits) = throttle(&service, &request, "zoe@example.org")
        .await
        .unwrap();
    let wait = next - instant(sent.sent_time);
    assert!(
        (wait - Duration::DAY).abs() < Duration::seconds(1),
        "{wait}"
    );
    assert_eq!(limits["recipient"], next);
    // Others do not wait.
    let (free, _) = throttle(&service, &request, "ann@example.org")
        .await
        .unwrap();
    assert!((free - now()).abs() < Duration::seconds(10));
    service.stop().await;
}

#[tokio::test]
async fn a_single_email_would_go_before_waiting_bulk_mail() {
    let service = Service::start(&["--recipient-limit=1/24h"]).await;
    let first = service.request("zoe@example.org");
    service.publish(first.message()).await;
    service.reaches(&first, proto::DeliveryState::Sent).await;
    let bulk = service.request("zoe@example.org").bulk();
    service.publish(bulk.message()).await;
    service
        .reaches(&bulk, proto::DeliveryState::Throttled)
        .await;
    let (next, _) = throttle(&service, &first, "zoe@example.org").await.unwrap();
    assert!(next - now() < Duration::DAY);
    service.stop().await;
}

#[tokio::test]
async fn a_recipient_that_is_no_address_is_refused() {
    let service = Service::start(&[]).await;
    let request = service.request("zoe@example.org");
    let refused = throttle(&service, &request, "zoe").await;
    let refusal = assert_invalid(refused, &["recipient"]);
    assert!(!refusal.message.contains("zoe"), "{}", refusal.message);
    service.stop().await;
}
