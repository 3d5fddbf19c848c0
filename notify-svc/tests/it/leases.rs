//! A process dies and leaves its emails behind.

use sqlx::AssertSqlSafe;
use usher_proto::{event::v1::DeliveryState, notify::v1 as proto};

use crate::{
    requests::Request,
    support::{Service, eventually, pool},
};

/// Puts an email into the state in which a process that died has left it.
async fn abandon(service: &Service, request: &Request, handing_over: bool) {
    let mut connection = service.database.admin().await.unwrap();
    let statement = format!(
        "UPDATE deliveries SET state = 'QUEUED', next_attempt_time = now() - interval '1 minute',
            lease_token = gen_random_uuid(), lease_expire_time = now() + interval '1 second',
            handing_over = {handing_over}
         WHERE invitation_id = '{}'",
        request.requested.invitation_id
    );
    let done = sqlx::query(AssertSqlSafe(statement))
        .execute(&mut connection)
        .await
        .unwrap();
    assert_eq!(done.rows_affected(), 1);
    // Its limit does not delay it any more.
    sqlx::query("UPDATE recipient_slots SET slot_time = slot_time - interval '2 days'")
        .execute(&mut connection)
        .await
        .unwrap();
}

/// Lets an email wait for the two before it.
const LIMIT: &str = "--recipient-limit=2/24h";

/// An email that waits for its limit, so that a test can do with it what it likes.
async fn waiting(service: &Service) -> Request {
    let [first, second, third] = [(); 3].map(|()| service.request("zoe@example.org"));
    let messages = [&first, &second, &third].map(Request::message);
    service.publish_all(&messages).await;
    for sent in [first, second] {
        service.reaches(&sent, proto::DeliveryState::Sent).await;
    }
    service
        .reaches(&third, proto::DeliveryState::Throttled)
        .await;
    third
}

#[tokio::test]
async fn an_email_that_was_not_handed_over_goes_again() {
    let service = Service::start(&[LIMIT]).await;
    let request = waiting(&service).await;
    abandon(&service, &request, false).await;
    let delivery = service.reaches(&request, proto::DeliveryState::Sent).await;
    assert_eq!(delivery.attempt_count, 1);
    eventually("its states are published", async || {
        service.published(&request) == [DeliveryState::Throttled, DeliveryState::Sent]
    })
    .await;
    service.stop().await;
}

#[tokio::test]
async fn an_email_that_was_being_handed_over_is_unknown_first() {
    let service = Service::start(&[LIMIT]).await;
    let request = waiting(&service).await;
    abandon(&service, &request, true).await;
    service.reaches(&request, proto::DeliveryState::Sent).await;
    eventually("its states are published", async || {
        service.published(&request)
            == [
                DeliveryState::Throttled,
                DeliveryState::Unknown,
                DeliveryState::Sent,
            ]
    })
    .await;
    service.stop().await;
}

#[tokio::test]
async fn or_is_given_up_where_the_policy_says_so() {
    let service = Service::start(&[LIMIT, "--unknown-outcome=fail"]).await;
    let request = waiting(&service).await;
    abandon(&service, &request, true).await;
    service
        .reaches(&request, proto::DeliveryState::Failed)
        .await;
    assert_eq!(service.smtp.taken().len(), 2);
    service.stop().await;
}

#[tokio::test]
async fn whoever_lost_the_lease_records_nothing() {
    use notify_svc::db::delivery::{self, Lane, Mark};
    use usher_runtime::database::{Scope, begin};

    let service = Service::start(&[LIMIT]).await;
    let request = waiting(&service).await;
    service.stop_working().await;
    let pool = pool(&service.database);
    let mut admin = service.database.admin().await.unwrap();
    sqlx::query(
        "UPDATE deliveries SET next_attempt_time = now() WHERE next_attempt_time IS NOT NULL",
    )
    .execute(&mut admin)
    .await
    .unwrap();

    let mut transaction = begin(&pool, Scope::Platform).await.unwrap();
    let lease = std::time::Duration::from_millis(1);
    let first = delivery::claim(&mut transaction, Lane::Urgent, 10, lease)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(first.len(), 1);
    assert_eq!(
        first[0].invitation_id.to_string(),
        request.requested.invitation_id
    );

    let mut second = Vec::new();
    while second.is_empty() {
        let mut transaction = begin(&pool, Scope::Platform).await.unwrap();
        second = delivery::claim(&mut transaction, Lane::Urgent, 10, lease)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
    }
    let held: Vec<_> = [&first[0], &second[0]]
        .iter()
        .map(|claim| (claim.delivery_id, claim.lease_token))
        .collect();
    let mut transaction = begin(&pool, Scope::Platform).await.unwrap();
    let lost = delivery::mark(&mut transaction, &held[..1], lease)
        .await
        .unwrap();
    let marked = delivery::mark(&mut transaction, &held[1..], lease)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    assert_eq!((lost, marked), (vec![Mark::Lost], vec![Mark::Marked]));
    pool.close().await;
    service.stop().await;
}
