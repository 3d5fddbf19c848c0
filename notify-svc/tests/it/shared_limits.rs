//! Limits of domains, organizations and the relay: never exceeded, and never in the way of urgent mail.

use std::time::Instant;

use time::Duration;
use usher_proto::notify::v1 as proto;
use usher_runtime::{bus::EventBus, seal::PrivateKey};
use uuid::Uuid;

use crate::{
    requests::{Request, instant},
    scripted_smtp::{At, Fault, ScriptedSmtp},
    support::{Service, database, eventually, shared},
};

fn requests(service: &Service, name: &str, count: usize) -> Vec<Request> {
    let recipients = (0..count).map(|n| format!("{name}{n}@example.org"));
    recipients
        .map(|recipient| service.request(&recipient))
        .collect()
}

async fn publish(service: &Service, requests: &[Request]) {
    let messages: Vec<_> = requests.iter().map(Request::message).collect();
    service.publish_all(&messages).await;
}

#[rstest::rstest]
#[case::domain("--domain-limit=2/1s")]
#[case::organization("--organization-limit=2/1s")]
#[case::relay("--relay-limit=2/1s")]
#[tokio::test]
async fn each_spaces_emails_out(#[case] limit: &str) {
    let service = Service::start(&[limit]).await;
    let requests = requests(&service, "client", 6);
    publish(&service, &requests).await;
    let (mut created, mut sent) = (Vec::new(), Vec::new());
    for request in &requests {
        let delivery = service.reaches(request, proto::DeliveryState::Sent).await;
        created.push(instant(delivery.create_time));
        sent.push(instant(delivery.sent_time));
    }
    // Two at once, and then one every half second.
    let whole = *sent.iter().max().unwrap() - *created.iter().min().unwrap();
    assert!(whole >= Duration::seconds(2), "{whole}");
    assert!(whole < Duration::seconds(6), "{whole}");
    assert_eq!(service.smtp.taken().len(), 6);
    service.stop().await;
}

/// Two processes work on one queue.
#[tokio::test]
async fn two_senders_exceed_none_together() {
    let limit = &["--relay-limit=40/1s", "--organization-limit=80/1s"];
    let smtp = ScriptedSmtp::start().await;
    let (key, _) = PrivateKey::generate().unwrap();
    let database = database().await;
    let bus = EventBus::in_process();
    let start =
        |database| Service::start_with(database, bus.clone(), smtp.clone(), key.clone(), limit);
    let second = start(shared(&database).await).await;
    let first = start(database).await;
    let requests = requests(&first, "client", 120);
    let started = Instant::now();
    publish(&first, &requests).await;
    eventually("all are sent", async || smtp.taken_count() == 120).await;
    // Forty at once, and then forty in a second.
    let whole = started.elapsed();
    assert!(whole >= std::time::Duration::from_secs(2), "{whole:?}");
    second.stop_working().await;
    first.stop().await;
}

#[tokio::test]
async fn a_retry_is_charged() {
    let service = Service::start(&["--organization-limit=1/1s"]).await;
    let later = Fault::Reply("450 4.2.0 greylisted");
    service.smtp.fail_once(At::Rcpt, later);
    service.smtp.fail_once(At::Rcpt, later);
    let request = service.request("zoe@example.org");
    service.publish(request.message()).await;
    let sent = service.reaches(&request, proto::DeliveryState::Sent).await;
    assert_eq!(sent.attempt_count, 3);
    // The delays after refusals are one and two tenths of a second.
    let whole = instant(sent.sent_time) - instant(sent.create_time);
    assert!(whole >= Duration::seconds(2), "{whole}");
    service.stop().await;
}

#[rstest::rstest]
#[case::relay("--relay-limit=10/1s")]
#[case::organization("--organization-limit=10/1s")]
#[case::domain("--domain-limit=10/1s")]
// Without a place that can be left free.
#[case::single("--relay-limit=1/100ms")]
#[tokio::test]
async fn bulk_mail_reserves_nothing(#[case] limit: &str) {
    let service = Service::start(&[limit]).await;
    let bulk: Vec<_> = requests(&service, "bulk", 400)
        .into_iter()
        .map(Request::bulk)
        .collect();
    publish(&service, &bulk).await;
    eventually("all of it was looked at", async || {
        service.smtp.taken_count() >= 20
    })
    .await;
    for n in 0..3 {
        let urgent = service.request(&format!("urgent{n}@example.org"));
        service.publish(urgent.message()).await;
        let sent = service.reaches(&urgent, proto::DeliveryState::Sent).await;
        let waited = instant(sent.sent_time) - instant(sent.create_time);
        assert!(waited < Duration::seconds(1), "{waited}");
    }
    assert!(service.smtp.taken_count() < 200);
    // And it goes on as fast as the limit lets it.
    let (before, started) = (service.smtp.taken_count(), Instant::now());
    eventually("more of it is sent", async || {
        service.smtp.taken_count() >= before + 20
    })
    .await;
    let whole = started.elapsed();
    assert!(whole < std::time::Duration::from_secs(6), "{whole:?}");
    service.stop().await;
}

/// A run of one organization does not hide the emails of another, however long it is.
#[rstest::rstest]
#[case::relay("--relay-limit=20/1s")]
#[case::domain("--domain-limit=20/1s")]
#[tokio::test]
async fn organizations_take_turns(#[case] limit: &str) {
    let service = Service::start(&[limit]).await;
    let many: Vec<_> = requests(&service, "many", 300)
        .into_iter()
        .map(Request::bulk)
        .collect();
    publish(&service, &many).await;
    eventually("it is under way", async || service.smtp.taken_count() > 0).await;
    let mut few: Vec<_> = requests(&service, "few", 5)
        .into_iter()
        .map(Request::bulk)
        .collect();
    for request in &mut few {
        request.organization_id = Uuid::from_u128(0x0191_0000_0000_7000_8000_0000_0000_0002);
        request.seal();
    }
    publish(&service, &few).await;
    for request in &few {
        service.reaches(request, proto::DeliveryState::Sent).await;
    }
    let taken = service.smtp.taken_count();
    assert!(taken < 120, "{taken}");
    service.stop().await;
}
