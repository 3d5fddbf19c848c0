//! A process dies and leaves its emails behind.

use sqlx::AssertSqlSafe;
use usher_proto::{event::v1::DeliveryState, notify::v1 as proto};

use usher_tests::in_own_process;

use crate::{
    requests::Request,
    scripted_smtp::{At, Fault},
    support::{Service, eventually},
};

/// Puts an email into the state in which a process that died has left it.
async fn abandon(service: &Service, request: &Request) {
    let mut connection = service.database.admin().await.unwrap();
    let statement = format!(
        "UPDATE delivery_queue AS queue
         SET next_attempt_time = now() - interval '1 minute', ready = true,
            handover_token = gen_random_uuid(), lease_expire_time = now() + interval '1 second'
         FROM deliveries AS delivery
         WHERE delivery.delivery_id = queue.delivery_id AND delivery.invitation_id = '{}'",
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
async fn an_email_that_was_being_handed_over_is_unknown_first() {
    let service = Service::start(&[LIMIT]).await;
    let request = waiting(&service).await;
    abandon(&service, &request).await;
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
    abandon(&service, &request).await;
    service
        .reaches(&request, proto::DeliveryState::Failed)
        .await;
    assert_eq!(service.smtp.taken().len(), 2);
    service.stop().await;
}

/// An email that the relay has and has not answered, and whose lease has ended so that it counts as unknown.
async fn taken_over(service: &Service, request: &Request) {
    service.smtp.fail_once(At::Dot, Fault::Wait);
    service.publish(request.message()).await;
    eventually("the relay has it", async || !service.smtp.has_faults_left()).await;
    sqlx::query(
        "UPDATE delivery_queue SET lease_expire_time = now() WHERE lease_expire_time > now()",
    )
    .execute(&mut service.database.admin().await.unwrap())
    .await
    .unwrap();
    service
        .reaches(request, proto::DeliveryState::Unknown)
        .await;
}

#[tokio::test]
async fn an_answer_counts_also_when_the_lease_has_ended() {
    let slow = [
        "--smtp-data-timeout=20s",
        "--send-lease=1m",
        "--unknown-delay=1h",
    ];
    let service = Service::start(&slow).await;
    let request = service.request("zoe@example.org");
    taken_over(&service, &request).await;
    service.smtp.go_on();
    let sent = service.reaches(&request, proto::DeliveryState::Sent).await;
    assert_eq!(sent.next_attempt_time, None);
    assert_eq!(service.smtp.taken_count(), 1);
    // Its slot for another attempt is free again.
    let slots: Vec<String> = sqlx::query_scalar("SELECT state FROM recipient_slots")
        .fetch_all(&mut service.database.admin().await.unwrap())
        .await
        .unwrap();
    assert_eq!(slots, ["GONE"]);
    service.stop().await;
}

/// What was sent is sent, also if it was tried again meanwhile.
#[tokio::test]
async fn an_earlier_handover_can_still_succeed() {
    let slow = [
        "--smtp-data-timeout=20s",
        "--send-lease=2m",
        "--retry-base=1h",
    ];
    let service = Service::start(&slow).await;
    let request = service.request("zoe@example.org");
    taken_over(&service, &request).await;
    service
        .smtp
        .fail_once(At::Rcpt, Fault::Reply("450 4.2.0 later"));
    let again = service
        .reaches(&request, proto::DeliveryState::Queued)
        .await;
    assert_eq!(again.attempt_count, 2);
    service.smtp.go_on();
    service.reaches(&request, proto::DeliveryState::Sent).await;
    service.stop().await;
}

/// And what nobody knows of it says nothing of the later one.
#[tokio::test]
async fn an_earlier_handover_that_is_lost_counts_once() {
    if !in_own_process("leases::an_earlier_handover_that_is_lost_counts_once").await {
        return;
    }
    let slow = [
        "--smtp-data-timeout=3s",
        "--send-lease=2m",
        "--unknown-delay=1500ms",
    ];
    let service = Service::start(&slow).await;
    service.smtp.fail_once(At::Dot, Fault::Stall);
    service.smtp.fail_once(At::Dot, Fault::Wait);
    let request = service.request("zoe@example.org");
    service.publish(request.message()).await;
    eventually("the relay has it", async || {
        sqlx::query(
            "UPDATE delivery_queue SET lease_expire_time = now() WHERE lease_expire_time > now()",
        )
        .execute(&mut service.database.admin().await.unwrap())
        .await
        .unwrap();
        service
            .published(&request)
            .contains(&DeliveryState::Unknown)
    })
    .await;
    eventually("it is handed over again", async || {
        !service.smtp.has_faults_left()
    })
    .await;
    eventually("the first one is lost", async || {
        crate::telemetry::logged("delivery attempted")
    })
    .await;
    service.smtp.go_on();
    let sent = service.reaches(&request, proto::DeliveryState::Sent).await;
    assert_eq!(sent.attempt_count, 2);
    eventually("its states are published", async || {
        service.published(&request)
            == [
                DeliveryState::Queued,
                DeliveryState::Unknown,
                DeliveryState::Sent,
            ]
    })
    .await;
    service.stop().await;
}

/// A relay that takes its time is not taken for a process that died.
#[tokio::test]
async fn a_lease_is_renewed_while_the_relay_takes_its_time() {
    let service = Service::start(&["--smtp-data-timeout=20s", "--send-lease=3s"]).await;
    service.smtp.fail_once(At::Dot, Fault::Wait);
    let request = service.request("zoe@example.org");
    service.publish(request.message()).await;
    eventually("the first lease has ended", async || {
        let age: Option<f64> = sqlx::query_scalar(
            "SELECT extract(epoch FROM now() - create_time)::float8 FROM deliveries",
        )
        .fetch_optional(&mut service.database.admin().await.unwrap())
        .await
        .unwrap();
        age.is_some_and(|seconds| seconds > 4.5)
    })
    .await;
    service.smtp.go_on();
    let sent = service.reaches(&request, proto::DeliveryState::Sent).await;
    assert_eq!(sent.attempt_count, 1);
    eventually("its states are published", async || {
        service.published(&request) == [DeliveryState::Queued, DeliveryState::Sent]
    })
    .await;
    service.stop().await;
}

/// An email that has waited for a connection until its lease, which could not be renewed, is nearly over.
#[tokio::test]
async fn what_waited_for_too_long_is_not_begun() {
    if !in_own_process("leases::what_waited_for_too_long_is_not_begun").await {
        return;
    }
    let service = Service::start(&[
        "--smtp-max-connections=1",
        "--smtp-data-timeout=2500ms",
        "--send-lease=3s",
        "--unknown-delay=1h",
    ])
    .await;
    sqlx::raw_sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'not now'; END $$;
         CREATE TRIGGER refuse BEFORE UPDATE ON delivery_queue FOR EACH ROW
            WHEN (NEW.lease_expire_time > OLD.lease_expire_time) EXECUTE FUNCTION refuse()",
    )
    .execute(&mut service.database.admin().await.unwrap())
    .await
    .unwrap();
    service.smtp.fail_once(At::Dot, Fault::Stall);
    let [slow, late] = ["slow", "late"].map(|name| service.request(&format!("{name}@example.org")));
    service.publish_all(&[slow.message(), late.message()]).await;
    for request in [&slow, &late] {
        eventually("it is taken", async || {
            let delivery = service.delivery(request).await;
            delivery.is_some_and(|delivery| {
                matches!(
                    delivery.state(),
                    proto::DeliveryState::Unknown | proto::DeliveryState::Sent
                )
            })
        })
        .await;
    }
    // The one that was lost, the late one that was not begun, and the same again.
    assert_eq!(crate::telemetry::count_logged("delivery attempted"), 3);
    assert_eq!(service.smtp.taken_count(), 1);
    service.stop().await;
}

/// Otherwise each of them would be sent again when its lease ends.
#[tokio::test]
async fn nothing_is_handed_over_while_outcomes_cannot_be_recorded() {
    if !in_own_process("leases::nothing_is_handed_over_while_outcomes_cannot_be_recorded").await {
        return;
    }
    let service = Service::start(&[]).await;
    let mut admin = service.database.admin().await.unwrap();
    sqlx::raw_sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'not now'; END $$;
         CREATE TRIGGER refuse BEFORE UPDATE ON deliveries FOR EACH ROW
            WHEN (NEW.state = 'SENT') EXECUTE FUNCTION refuse()",
    )
    .execute(&mut admin)
    .await
    .unwrap();
    let first = service.request("first@example.org");
    service.publish(first.message()).await;
    let is_logged = || crate::telemetry::count_logged("outcomes cannot be recorded");
    eventually("the sender notices", async || is_logged() > 0).await;
    let second = service.request("second@example.org");
    service.publish(second.message()).await;
    let before = is_logged();
    eventually("it tries some more times", async || {
        is_logged() >= before + 3
    })
    .await;
    assert_eq!(service.smtp.taken_count(), 1);
    sqlx::query("DROP TRIGGER refuse ON deliveries")
        .execute(&mut admin)
        .await
        .unwrap();
    for request in [first, second] {
        service.reaches(&request, proto::DeliveryState::Sent).await;
    }
    assert_eq!(service.smtp.taken_count(), 2);
    service.stop().await;
}
