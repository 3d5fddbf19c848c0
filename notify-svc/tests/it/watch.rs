//! `WatchDeliveries`: changes as they happen.

use tonic::Streaming;
use usher_proto::notify::v1::{
    Delivery, DeliveryState, WatchDeliveriesRequest, WatchDeliveriesResponse,
    delivery_service_client::DeliveryServiceClient,
};
use usher_tests::refusal::assert_refused;

use crate::{
    requests::Request,
    scripted_smtp::{At, Fault},
    support::Service,
};

async fn in_time<T>(waiting: impl Future<Output = T>) -> T {
    let limit = std::time::Duration::from_secs(20);
    tokio::time::timeout(limit, waiting).await.expect("in time")
}

async fn watch(
    service: &Service,
    like: &Request,
    invitation_id: &str,
) -> Streaming<WatchDeliveriesResponse> {
    let request = WatchDeliveriesRequest {
        organization_id: like.organization_id.to_string(),
        invitation_id: invitation_id.to_owned(),
    };
    let mut client = DeliveryServiceClient::new(service.channel.clone());
    client.watch_deliveries(request).await.unwrap().into_inner()
}

async fn next(stream: &mut Streaming<WatchDeliveriesResponse>) -> Delivery {
    let response = in_time(stream.message()).await.unwrap();
    response.unwrap().delivery.unwrap()
}

/// Waits for an email to be in a state; whatever comes before is passed over.
async fn reaches(
    stream: &mut Streaming<WatchDeliveriesResponse>,
    request: &Request,
    state: DeliveryState,
) -> Delivery {
    loop {
        let delivery = next(stream).await;
        if delivery.invitation_id == request.requested.invitation_id && delivery.state() == state {
            return delivery;
        }
    }
}

#[tokio::test]
async fn changes_are_seen_as_they_happen() {
    let service = Service::start(&["--recipient-limit=1/24h"]).await;
    let first = service.request("zoe@example.org");
    service.publish(first.message()).await;
    service.reaches(&first, DeliveryState::Sent).await;

    let mut changes = watch(&service, &first, "").await;
    let second = service.request("zoe@example.org");
    service.publish(second.message()).await;
    let throttled = reaches(&mut changes, &second, DeliveryState::Throttled).await;
    assert_eq!(Some(&throttled), service.delivery(&second).await.as_ref());
    service.publish(second.revocation()).await;
    reaches(&mut changes, &second, DeliveryState::Cancelled).await;
    service.stop().await;
}

#[tokio::test]
async fn only_the_emails_of_the_invitation_and_of_the_organization_are_seen() {
    let service = Service::start(&[]).await;
    let request = service.request("zoe@example.org");
    let mut changes = watch(&service, &request, &request.requested.invitation_id).await;
    let other = service.request("ann@example.org");
    let mut of_others = service.request("bob@example.org");
    of_others.organization_id = uuid::Uuid::now_v7();
    of_others.seal();
    let mut of_organization = watch(&service, &of_others, "").await;
    service
        .publish_all(&[other.message(), of_others.message()])
        .await;
    service.reaches(&other, DeliveryState::Sent).await;
    service.publish(request.message()).await;
    loop {
        let delivery = next(&mut changes).await;
        assert_eq!(delivery.invitation_id, request.requested.invitation_id);
        if delivery.state() == DeliveryState::Sent {
            break;
        }
    }
    loop {
        let delivery = next(&mut of_organization).await;
        assert_eq!(
            delivery.organization_id,
            of_others.organization_id.to_string()
        );
        if delivery.state() == DeliveryState::Sent {
            break;
        }
    }
    service.stop().await;
}

/// A change that is committed after a younger one is seen all the same.
#[tokio::test]
async fn a_change_that_took_long_is_not_missed() {
    let service = Service::start(&[]).await;
    let slow = service.request("zoe@example.org");
    service
        .smtp
        .fail_once(At::Data, Fault::Reply("554 5.6.0 not like this"));
    service.publish(slow.message()).await;
    service.reaches(&slow, DeliveryState::Failed).await;
    let mut changes = watch(&service, &slow, "").await;

    let mut admin = service.database.admin().await.unwrap();
    sqlx::raw_sql(
        "BEGIN; UPDATE deliveries SET state = 'BOUNCED', encapsulated_key = NULL, ciphertext = NULL,
            change_xid = pg_current_xact_id()",
    )
    .execute(&mut admin)
    .await
    .unwrap();
    let quick = service.request("ann@example.org");
    service.publish(quick.message()).await;
    service.reaches(&quick, DeliveryState::Sent).await;
    sqlx::raw_sql("COMMIT").execute(&mut admin).await.unwrap();

    let mut seen = [false; 2];
    while seen != [true; 2] {
        let delivery = next(&mut changes).await;
        seen[0] |= delivery.state() == DeliveryState::Bounced;
        seen[1] |= delivery.state() == DeliveryState::Sent;
    }
    service.stop().await;
}

#[tokio::test]
async fn a_watch_ends_when_the_service_stops_and_says_so() {
    let service = Service::start(&[]).await;
    let request = service.request("zoe@example.org");
    let mut changes = watch(&service, &request, "").await;
    let stopping = tokio::spawn(async move { changes.message().await });
    service.stop().await;
    let ended = in_time(stopping).await.unwrap();
    assert_refused(ended, tonic::Code::Unavailable, "OVERLOADED", &[]);
}
