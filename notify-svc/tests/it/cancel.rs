//! `CancelDelivery`: what was not sent yet is stopped, and nothing else.

use tonic::{Code, Status};
use usher_proto::{
    event::v1::DeliveryState,
    notify::v1::{
        self as proto, CancelDeliveryRequest, Delivery,
        delivery_service_client::DeliveryServiceClient,
    },
};
use usher_tests::refusal::assert_refused;
use uuid::Uuid;

use crate::{
    requests::Request,
    scripted_smtp::{At, Fault},
    support::{Service, eventually},
};

fn cancellation(delivery: &Delivery) -> CancelDeliveryRequest {
    CancelDeliveryRequest {
        organization_id: delivery.organization_id.clone(),
        delivery_id: delivery.delivery_id.clone(),
        request_id: Uuid::now_v7().to_string(),
    }
}

async fn cancel(service: &Service, request: &CancelDeliveryRequest) -> Result<Delivery, Status> {
    let mut client = DeliveryServiceClient::new(service.channel.clone());
    let response = client.cancel_delivery(request.clone()).await?;
    Ok(response.into_inner().delivery.unwrap())
}

/// Actor and action of every entry about an email.
async fn audited(service: &Service, delivery: &Delivery) -> Vec<(String, String)> {
    sqlx::query_as("SELECT actor, action FROM audit_events WHERE resource_id = $1::uuid")
        .bind(&delivery.delivery_id)
        .fetch_all(&mut service.database.admin().await.unwrap())
        .await
        .unwrap()
}

async fn publish(service: &Service, recipient: &str) -> Request {
    let request = service.request(recipient);
    service.publish(request.message()).await;
    request
}

#[tokio::test]
async fn a_waiting_email_is_cancelled_once_and_never_sent() {
    let service = Service::start(&["--recipient-gap=2s", "--recipient-limit=5/24h"]).await;
    let first = publish(&service, "zoe@example.org").await;
    service.reaches(&first, proto::DeliveryState::Sent).await;
    let waiting = publish(&service, "zoe@example.org").await;
    let throttled = service
        .reaches(&waiting, proto::DeliveryState::Throttled)
        .await;
    let later = publish(&service, "zoe@example.org").await;

    let request = cancellation(&throttled);
    let cancelled = cancel(&service, &request).await.unwrap();
    assert_eq!(cancelled.state(), proto::DeliveryState::Cancelled);
    assert_eq!(cancelled.reason, "staff cancelled the email");
    assert_eq!(cancelled.next_attempt_time, None);
    // The same request, and another one for the same email.
    assert_eq!(cancel(&service, &request).await.unwrap(), cancelled);
    let again = cancellation(&throttled);
    assert_eq!(cancel(&service, &again).await.unwrap(), cancelled);
    let entries = audited(&service, &cancelled).await;
    let expected = ("anonymous".to_owned(), "delivery.cancelled".to_owned());
    assert_eq!(entries, [expected]);

    // Its slot is free, and the next email goes.
    service.reaches(&later, proto::DeliveryState::Sent).await;
    assert_eq!(service.smtp.taken().len(), 2);
    eventually("its states are published", async || {
        service.published(&waiting) == [DeliveryState::Throttled, DeliveryState::Cancelled]
    })
    .await;
    service.stop().await;
}

#[tokio::test]
async fn an_email_that_is_being_handed_over_or_has_ended_is_not_cancelled() {
    let service = Service::start(&["--smtp-data-timeout=20s", "--send-lease=5m"]).await;
    service.smtp.fail_once(At::Dot, Fault::Wait);
    let request = publish(&service, "zoe@example.org").await;
    eventually("the relay has it all", async || {
        !service.smtp.has_faults_left()
    })
    .await;
    let sending = service.delivery(&request).await.unwrap();
    let refused = assert_refused(
        cancel(&service, &cancellation(&sending)).await,
        Code::FailedPrecondition,
        "DELIVERY_BEING_SENT",
        &[],
    );
    assert!(refused.details.retry_info().is_some());
    service.smtp.go_on();
    let sent = service.reaches(&request, proto::DeliveryState::Sent).await;
    let refused = assert_refused(
        cancel(&service, &cancellation(&sent)).await,
        Code::FailedPrecondition,
        "DELIVERY_ENDED",
        &[],
    );
    let info = refused.details.error_info().unwrap();
    assert_eq!(info.metadata["state"], "SENT");
    assert_eq!(audited(&service, &sent).await, []);
    service.stop().await;
}

#[tokio::test]
async fn an_email_that_may_have_arrived_fails_and_is_not_sent_again() {
    let service = Service::start(&["--unknown-delay=2s"]).await;
    service.smtp.fail_once(At::Dot, Fault::TakeAndCut);
    let request = publish(&service, "zoe@example.org").await;
    let unknown = service
        .reaches(&request, proto::DeliveryState::Unknown)
        .await;
    let failed = cancel(&service, &cancellation(&unknown)).await.unwrap();
    assert_eq!(failed.state(), proto::DeliveryState::Failed);
    assert!(failed.reason.contains("answer was lost"), "{failed:?}");
    assert_eq!(failed.next_attempt_time, None);
    eventually("its states are published", async || {
        service.published(&request)
            == [
                DeliveryState::Queued,
                DeliveryState::Unknown,
                DeliveryState::Failed,
            ]
    })
    .await;
    assert_eq!(service.smtp.taken().len(), 1);
    service.stop().await;
}

#[tokio::test]
async fn of_another_organization_it_is_not_there() {
    let service = Service::start(&["--recipient-limit=1/24h"]).await;
    publish(&service, "zoe@example.org").await;
    let waiting = publish(&service, "zoe@example.org").await;
    let throttled = service
        .reaches(&waiting, proto::DeliveryState::Throttled)
        .await;
    let foreign = CancelDeliveryRequest {
        organization_id: Uuid::now_v7().to_string(),
        ..cancellation(&throttled)
    };
    let unknown = CancelDeliveryRequest {
        delivery_id: Uuid::now_v7().to_string(),
        ..cancellation(&throttled)
    };
    for request in [foreign, unknown] {
        let refused = cancel(&service, &request).await;
        assert_refused(refused, Code::NotFound, "DELIVERY_NOT_FOUND", &[]);
    }
    assert_eq!(service.delivery(&waiting).await.unwrap(), throttled);
    service.stop().await;
}

#[tokio::test]
async fn a_request_id_is_good_for_one_request() {
    let service = Service::start(&["--recipient-limit=1/24h"]).await;
    publish(&service, "zoe@example.org").await;
    let mut cancelled = None;
    for _ in 0..2 {
        let waiting = publish(&service, "zoe@example.org").await;
        let throttled = service
            .reaches(&waiting, proto::DeliveryState::Throttled)
            .await;
        let request = CancelDeliveryRequest {
            request_id: cancelled
                .clone()
                .unwrap_or_else(|| Uuid::now_v7().to_string()),
            ..cancellation(&throttled)
        };
        let result = cancel(&service, &request).await;
        if cancelled.is_none() {
            result.unwrap();
            cancelled = Some(request.request_id);
        } else {
            assert_refused(result, Code::AlreadyExists, "REQUEST_ID_REUSED", &[]);
            assert_eq!(service.delivery(&waiting).await.unwrap(), throttled);
        }
    }
    service.stop().await;
}
