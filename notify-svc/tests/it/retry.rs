//! `RetryDelivery`: what failed is sent again, as long as its link works, and nothing else.

use time::Duration;
use tonic::{Code, Status};
use usher_proto::{
    event::v1::DeliveryState,
    notify::v1::{
        self as proto, Delivery, RetryDeliveryRequest,
        delivery_service_client::DeliveryServiceClient,
    },
};
use usher_tests::refusal::assert_refused;
use uuid::Uuid;

use crate::{
    requests::{Request, instant, now},
    scripted_smtp::{At, Fault},
    support::{Service, eventually},
};

fn retrial(delivery: &Delivery) -> RetryDeliveryRequest {
    RetryDeliveryRequest {
        organization_id: delivery.organization_id.clone(),
        delivery_id: delivery.delivery_id.clone(),
        request_id: Uuid::now_v7().to_string(),
    }
}

async fn retry(service: &Service, request: &RetryDeliveryRequest) -> Result<Delivery, Status> {
    let mut client = DeliveryServiceClient::new(service.channel.clone());
    let response = client.retry_delivery(request.clone()).await?;
    Ok(response.into_inner().delivery.unwrap())
}

/// An email that the relay refused for good.
async fn failed(service: &Service, request: &Request) -> Delivery {
    service
        .smtp
        .fail_once(At::Rcpt, Fault::Reply("554 5.6.0 not like this"));
    service.publish(request.message()).await;
    service.reaches(request, proto::DeliveryState::Failed).await
}

#[tokio::test]
async fn a_failed_email_is_sent_again_once() {
    let service = Service::start(&["--recipient-gap=0s"]).await;
    let request = service.request("zoe@example.org");
    let delivery = failed(&service, &request).await;
    let retrial = retrial(&delivery);
    let retried = retry(&service, &retrial).await.unwrap();
    assert_eq!(retried.state(), proto::DeliveryState::Queued);
    assert_eq!(
        (retried.reason.as_str(), retried.smtp_status.as_str()),
        ("", "")
    );
    // The same call, once more.
    assert_eq!(retry(&service, &retrial).await.unwrap(), retried);
    let sent = service.reaches(&request, proto::DeliveryState::Sent).await;
    assert_eq!(sent.message_id, delivery.message_id);
    assert_eq!(service.smtp.taken().len(), 1);
    eventually("its states are published", async || {
        let states = [
            DeliveryState::Queued,
            DeliveryState::Failed,
            DeliveryState::Queued,
            DeliveryState::Sent,
        ];
        service.published(&request) == states
    })
    .await;
    let entries: Vec<(String,)> =
        sqlx::query_as("SELECT action FROM audit_events WHERE resource_id = $1::uuid")
            .bind(&delivery.delivery_id)
            .fetch_all(&mut service.database.admin().await.unwrap())
            .await
            .unwrap();
    assert_eq!(entries, [("delivery.retried".to_owned(),)]);

    let again = retry(&service, &self::retrial(&sent)).await;
    assert_refused(
        again,
        Code::FailedPrecondition,
        "DELIVERY_NOT_RETRYABLE",
        &[],
    );
    service.stop().await;
}

/// The limit counts retries too.
#[tokio::test]
async fn a_retried_email_waits_for_its_recipient() {
    let service = Service::start(&["--recipient-limit=1/24h"]).await;
    let first = service.request("zoe@example.org");
    let delivery = failed(&service, &first).await;
    let other = service.request("zoe@example.org");
    service.publish(other.message()).await;
    service.reaches(&other, proto::DeliveryState::Sent).await;
    let retried = retry(&service, &retrial(&delivery)).await.unwrap();
    assert_eq!(retried.state(), proto::DeliveryState::Throttled);
    let wait = instant(retried.next_attempt_time) - now();
    assert!(wait > Duration::hours(23), "{wait}");
    // It waits already.
    let again = retry(&service, &retrial(&delivery)).await.unwrap();
    assert_eq!(again, retried);
    service.stop().await;
}

#[tokio::test]
async fn an_email_that_may_have_arrived_keeps_the_slot_that_it_used() {
    let service = Service::start(&[
        "--recipient-limit=2/24h",
        "--recipient-gap=0s",
        "--unknown-outcome=fail",
    ])
    .await;
    let request = service.request("zoe@example.org");
    service.smtp.fail_once(At::Dot, Fault::TakeAndCut);
    service.publish(request.message()).await;
    let delivery = service
        .reaches(&request, proto::DeliveryState::Failed)
        .await;
    retry(&service, &retrial(&delivery)).await.unwrap();
    service.reaches(&request, proto::DeliveryState::Sent).await;
    let next = service.request("zoe@example.org");
    service.publish(next.message()).await;
    service
        .reaches(&next, proto::DeliveryState::Throttled)
        .await;
    service.stop().await;
}

#[tokio::test]
async fn what_can_be_sent_no_more_is_refused() {
    let service = Service::start(&["--recipient-limit=2/24h", "--recipient-gap=0s"]).await;
    let revoked = service.request("ann@example.org");
    let delivery = failed(&service, &revoked).await;
    service.publish(revoked.revocation()).await;
    eventually("it is void", async || {
        let refused = retry(&service, &retrial(&delivery)).await;
        refused.is_err_and(|status| status.message().contains("revoked"))
    })
    .await;

    let late = service
        .request("bob@example.org")
        .expiring_in(Duration::hours(23));
    let delivery = failed(&service, &late).await;
    for _ in 0..2 {
        let other = service.request("bob@example.org");
        service.publish(other.message()).await;
        service.reaches(&other, proto::DeliveryState::Sent).await;
    }
    let refused = retry(&service, &retrial(&delivery)).await;
    let refusal = assert_refused(
        refused,
        Code::FailedPrecondition,
        "DELIVERY_NOT_RETRYABLE",
        &[],
    );
    assert!(refusal.message.contains("expire"), "{}", refusal.message);

    let unknown = RetryDeliveryRequest {
        delivery_id: Uuid::now_v7().to_string(),
        ..retrial(&delivery)
    };
    let refused = retry(&service, &unknown).await;
    assert_refused(refused, Code::NotFound, "DELIVERY_NOT_FOUND", &[]);
    let of_others = RetryDeliveryRequest {
        organization_id: Uuid::now_v7().to_string(),
        ..retrial(&delivery)
    };
    let refused = retry(&service, &of_others).await;
    assert_refused(refused, Code::NotFound, "DELIVERY_NOT_FOUND", &[]);
    assert_eq!(service.smtp.taken_for("bob@example.org").len(), 2);
    service.stop().await;
}
