//! Limits delay emails, visibly and exactly, and never drop them.

use time::Duration;
use usher_proto::{event::v1::DeliveryState, notify::v1 as proto};

use crate::{
    requests::{Request, instant, now},
    scripted_smtp::{At, Fault},
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
    // A day after the first went.
    let day = slot - instant(first.create_time);
    assert!(
        day >= Duration::hours(24) && day < Duration::hours(24) + Duration::seconds(10),
        "{day}"
    );

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

/// Ten clicks on "send again" make no email wait longer than the second.
#[tokio::test]
async fn what_is_revoked_gives_its_place_back() {
    let service = Service::start(&["--recipient-limit=5/24h", "--recipient-gap=60s"]).await;
    let mut requests = vec![service.request("zoe@example.org")];
    service.publish(requests[0].message()).await;
    let first = service
        .reaches(&requests[0], proto::DeliveryState::Sent)
        .await;
    for _ in 0..10 {
        let newer = service.request("zoe@example.org");
        let older = &requests[requests.len() - 1];
        service
            .publish_all(&[older.revocation(), newer.message()])
            .await;
        service
            .reaches(&newer, proto::DeliveryState::Throttled)
            .await;
        requests.push(newer);
    }
    let tenth = service.delivery(&requests[10]).await.unwrap();
    let wait = instant(tenth.next_attempt_time) - instant(first.sent_time);
    assert!(
        (wait - Duration::seconds(60)).abs() < Duration::seconds(1),
        "{wait}"
    );
    service.stop().await;
}

#[tokio::test]
async fn later_emails_move_forward_and_it_is_published() {
    let service = Service::start(&["--recipient-limit=1/24h"]).await;
    let requests: Vec<_> = (0..3).map(|_| service.request("zoe@example.org")).collect();
    for request in &requests {
        service.publish(request.message()).await;
        eventually("it is taken in", async || {
            service.delivery(request).await.is_some()
        })
        .await;
    }
    let first = service
        .reaches(&requests[0], proto::DeliveryState::Sent)
        .await;
    let third = service.delivery(&requests[2]).await.unwrap();
    let wait = instant(third.next_attempt_time) - instant(first.create_time);
    assert!(wait >= Duration::hours(48), "{wait}");

    service.publish(requests[1].revocation()).await;
    service
        .reaches(&requests[1], proto::DeliveryState::Cancelled)
        .await;
    let third = service.delivery(&requests[2]).await.unwrap();
    let time = instant(third.next_attempt_time);
    let wait = time - instant(first.sent_time);
    assert!(
        (wait - Duration::hours(24)).abs() < Duration::seconds(10),
        "{wait}"
    );
    assert_eq!(third.state(), proto::DeliveryState::Throttled);
    eventually("the earlier time is published", async || {
        let changes = service.changes.lock().unwrap().clone();
        changes.iter().any(|(change, _)| {
            change.invitation_id == requests[2].requested.invitation_id
                && change.throttled_until.is_some()
                && instant(change.throttled_until) == time
        })
    })
    .await;
    service.stop().await;
}

/// Others went later than planned, for example after an outage.
#[tokio::test]
async fn the_limit_is_checked_again_when_an_email_is_due() {
    let service = Service::start(&["--recipient-limit=2/24h"]).await;
    let requests: Vec<_> = (0..3).map(|_| service.request("zoe@example.org")).collect();
    let messages: Vec<_> = requests.iter().map(Request::message).collect();
    service.publish_all(&messages).await;
    for request in &requests[..2] {
        service.reaches(request, proto::DeliveryState::Sent).await;
    }
    service
        .reaches(&requests[2], proto::DeliveryState::Throttled)
        .await;
    // As if a day had passed between the plan and now.
    sqlx::raw_sql(
        "UPDATE recipient_slots SET slot_time = now() WHERE state = 'WAITING';
        UPDATE delivery_queue SET next_attempt_time = now()",
    )
    .execute(&mut service.database.admin().await.unwrap())
    .await
    .unwrap();
    eventually("it waits again", async || {
        let third = service.delivery(&requests[2]).await.unwrap();
        assert_ne!(third.state(), proto::DeliveryState::Sent);
        instant(third.next_attempt_time) > now() + Duration::hours(23)
    })
    .await;
    assert_eq!(service.smtp.taken().len(), 2);
    service.stop().await;
}

#[tokio::test]
async fn what_would_wait_for_longer_than_its_link_works_fails_at_once() {
    let service = Service::start(&["--recipient-limit=1/24h"]).await;
    let first = service.request("zoe@example.org");
    service.publish(first.message()).await;
    service.reaches(&first, proto::DeliveryState::Sent).await;
    let hopeless = service
        .request("zoe@example.org")
        .expiring_in(Duration::hours(23));
    service.publish(hopeless.message()).await;
    let failed = service
        .reaches(&hopeless, proto::DeliveryState::Failed)
        .await;
    assert!(failed.reason.contains("expire"), "{}", failed.reason);
    // It takes no place from the next.
    let next = service.request("zoe@example.org");
    service.publish(next.message()).await;
    let next = service
        .reaches(&next, proto::DeliveryState::Throttled)
        .await;
    let wait = instant(next.next_attempt_time) - now();
    assert!(wait < Duration::hours(24), "{wait}");
    service.stop().await;
}

/// It may have arrived.
#[tokio::test]
async fn an_email_whose_answer_was_lost_counts() {
    let service = Service::start(&["--recipient-limit=1/24h"]).await;
    service.smtp.fail_once(At::Dot, Fault::TakeAndCut);
    let request = service.request("zoe@example.org");
    service.publish(request.message()).await;
    let unknown = service
        .reaches(&request, proto::DeliveryState::Unknown)
        .await;
    let wait = instant(unknown.next_attempt_time) - instant(unknown.create_time);
    assert!(wait >= Duration::hours(24), "{wait}");
    service.stop().await;
}

/// Its next slot is a day later.
#[tokio::test]
async fn an_email_whose_answer_was_lost_fails_if_its_link_expires_before_its_next_slot() {
    let service = Service::start(&["--recipient-limit=1/24h"]).await;
    service.smtp.fail_once(At::Dot, Fault::TakeAndCut);
    let request = service
        .request("zoe@example.org")
        .expiring_in(Duration::hours(23));
    service.publish(request.message()).await;
    let failed = service
        .reaches(&request, proto::DeliveryState::Failed)
        .await;
    assert!(
        failed.reason.contains("may have arrived"),
        "{}",
        failed.reason
    );
    assert!(failed.reason.contains("expire"), "{}", failed.reason);
    eventually("it is published", async || {
        service.published(&request) == [DeliveryState::Queued, DeliveryState::Failed]
    })
    .await;
    service.stop().await;
}

/// It may have arrived: "cancelled" would say that it was never sent.
#[tokio::test]
async fn an_email_whose_answer_was_lost_fails_at_once_when_it_is_revoked() {
    let service = Service::start(&["--recipient-limit=1/24h"]).await;
    service.smtp.fail_once(At::Dot, Fault::TakeAndCut);
    let request = service.request("zoe@example.org");
    service.publish(request.message()).await;
    service
        .reaches(&request, proto::DeliveryState::Unknown)
        .await;
    service.publish(request.revocation()).await;
    let failed = service
        .reaches(&request, proto::DeliveryState::Failed)
        .await;
    assert!(
        failed.reason.contains("answer was lost"),
        "{}",
        failed.reason
    );
    // What it used stays used, and what it waited for is free.
    let next = service.request("zoe@example.org");
    service.publish(next.message()).await;
    let next = service
        .reaches(&next, proto::DeliveryState::Throttled)
        .await;
    let wait = instant(next.next_attempt_time) - now();
    assert!(wait < Duration::hours(24), "{wait}");
    service.stop().await;
}

/// It waits for the relay then, and for no limit.
#[tokio::test]
async fn an_email_whose_slot_has_come_is_queued_while_the_relay_is_away() {
    let service = Service::start(&[
        "--recipient-limit=1/1s",
        "--recipient-gap=0s",
        "--retry-base=1h",
    ])
    .await;
    let first = service.request("zoe@example.org");
    service.publish(first.message()).await;
    service.reaches(&first, proto::DeliveryState::Sent).await;
    service.smtp.fail_once(At::Data, Fault::Cut);
    let second = service.request("zoe@example.org");
    service.publish(second.message()).await;
    service
        .reaches(&second, proto::DeliveryState::Throttled)
        .await;
    let queued = service.reaches(&second, proto::DeliveryState::Queued).await;
    assert!(instant(queued.next_attempt_time) > now() + Duration::minutes(20));
    eventually("it is published", async || {
        service.published(&second) == [DeliveryState::Throttled, DeliveryState::Queued]
    })
    .await;
    service.stop().await;
}

#[tokio::test]
async fn a_single_email_goes_before_waiting_bulk_mail() {
    let service = Service::start(&["--recipient-limit=1/24h"]).await;
    let bulk: Vec<_> = (0..3)
        .map(|_| service.request("zoe@example.org").bulk())
        .collect();
    for request in &bulk {
        service.publish(request.message()).await;
        eventually("it is taken in", async || {
            service.delivery(request).await.is_some()
        })
        .await;
    }
    let first = service.reaches(&bulk[0], proto::DeliveryState::Sent).await;
    let single = service.request("zoe@example.org");
    service.publish(single.message()).await;
    let single = service
        .reaches(&single, proto::DeliveryState::Throttled)
        .await;
    let days = |delivery: &proto::Delivery| {
        (instant(delivery.next_attempt_time) - instant(first.sent_time) + Duration::HOUR)
            .whole_days()
    };
    assert_eq!(days(&single), 1);
    for (request, expected) in bulk[1..].iter().zip([2, 3]) {
        let waiting = service.delivery(request).await.unwrap();
        assert_eq!(days(&waiting), expected);
        eventually("the later time is published", async || {
            let changes = service.changes.lock().unwrap().clone();
            changes.iter().any(|(change, _)| {
                change.delivery_id == waiting.delivery_id
                    && change.throttled_until == waiting.next_attempt_time
            })
        })
        .await;
    }
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
