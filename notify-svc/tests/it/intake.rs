//! Events come many times, in any order, and some of them are poison.

use std::collections::HashMap;

use usher_proto::{
    event::v1::{DeliveryState, Event, event::Payload},
    notify::v1 as proto,
    topology::routing_key,
};
use uuid::Uuid;

use crate::{
    requests::{Request, envelope, token_of},
    scripted_smtp::{At, Fault},
    support::{Service, eventually},
};

#[tokio::test]
async fn an_event_becomes_an_email() {
    let service = Service::start(&[]).await;
    let request = service.request("zoe@example.org");
    service.publish(request.message()).await;

    let delivery = service.reaches(&request, proto::DeliveryState::Sent).await;
    assert_eq!(delivery.smtp_status, "250 2.0.0");
    assert_eq!(delivery.recipient, "z***@example.org");
    assert_eq!(delivery.attempt_count, 1);
    assert_eq!(delivery.next_attempt_time, None);
    assert!(delivery.sent_time.is_some());

    let taken = service.smtp.taken();
    assert_eq!(taken.len(), 1);
    let mail = mail_parser::MessageParser::default()
        .parse(&taken[0].raw)
        .unwrap();
    assert_eq!(
        mail.message_id().unwrap(),
        delivery.message_id.trim_matches(['<', '>'])
    );
    let from = mail.from().unwrap().first().unwrap();
    assert_eq!(from.name(), Some("Maison Élan & Fils"));
    assert_eq!(from.address(), Some("invitations@mail.example"));
    let to = mail.to().unwrap().first().unwrap();
    assert_eq!(to.name(), Some("Zoë Łukasiewicz-O'Hara"));
    assert_eq!(
        mail.reply_to().unwrap().first().unwrap().address(),
        Some("desk@elan.example")
    );
    assert_eq!(
        mail.header_raw("Auto-Submitted").map(str::trim),
        Some("auto-generated")
    );
    let link = format!(
        "https://portal.example/activate?token={}",
        token_of(&request.requested.invitation_id)
    );
    assert!(mail.body_text(0).unwrap().contains(&link));
    assert!(mail.body_html(0).unwrap().contains(&link));

    eventually("both states are published", async || {
        service.published(&request) == [DeliveryState::Queued, DeliveryState::Sent]
    })
    .await;
    service.stop().await;
}

/// account-svc gives an email up of which it hears nothing, so the first report does not wait for the relay.
#[tokio::test]
async fn an_email_is_reported_when_it_is_taken_in_and_not_only_when_it_was_sent() {
    let service = Service::start(&["--smtp-data-timeout=20s", "--send-lease=1m"]).await;
    service.smtp.fail_once(At::Dot, Fault::Wait);
    let request = service.request("zoe@example.org");
    service.publish(request.message()).await;
    eventually("it is reported", async || {
        service.published(&request) == [DeliveryState::Queued]
    })
    .await;
    eventually("the relay has it", async || !service.smtp.has_faults_left()).await;
    assert_eq!(service.published(&request), [DeliveryState::Queued]);
    service.smtp.go_on();
    service.reaches(&request, proto::DeliveryState::Sent).await;
    service.stop().await;
}

#[tokio::test]
async fn ten_times_shuffled_is_one_email() {
    let service = Service::start(&["--recipient-gap=0s"]).await;
    let requests: Vec<_> = (0..20)
        .map(|n| service.request(&format!("client{n}@example.org")))
        .collect();
    // The same event again, and the same email under another event id.
    let mut messages = Vec::new();
    for round in 0..10 {
        for request in &requests {
            let mut request = request.clone();
            if round % 3 == 1 {
                request.event_id = Uuid::now_v7();
            }
            messages.push(request.message());
        }
    }
    let count = messages.len();
    for index in 0..count {
        // 73 and 200 have no common factor: every message once, far from where it was.
        messages.swap(index, index * 73 % count);
    }
    futures::future::join_all(messages.chunks(7).map(|chunk| service.publish_all(chunk))).await;
    for request in &requests {
        service.reaches(request, proto::DeliveryState::Sent).await;
    }
    assert_eq!(service.smtp.taken().len(), requests.len());
    service.stop().await;
}

#[tokio::test]
async fn each_send_number_is_an_email_of_its_own() {
    let service = Service::start(&["--recipient-gap=0s"]).await;
    let first = service.request("zoe@example.org");
    let mut second = first.clone();
    second.event_id = Uuid::now_v7();
    second.requested.send_number = 2;
    second.seal();
    // The later one first.
    service.publish(second.message()).await;
    service.publish(first.message()).await;
    service.reaches(&first, proto::DeliveryState::Sent).await;
    service.reaches(&second, proto::DeliveryState::Sent).await;
    assert_eq!(service.smtp.taken().len(), 2);
    service.stop().await;
}

#[tokio::test]
async fn revoked_before_or_after_it_is_not_sent() {
    let service = Service::start(&["--recipient-limit=1/24h", "--recipient-gap=0s"]).await;
    let early = service.request("early@example.org");
    service.publish(early.revocation()).await;
    service.publish(early.message()).await;
    let delivery = service
        .reaches(&early, proto::DeliveryState::Cancelled)
        .await;
    assert_eq!(delivery.next_attempt_time, None);

    // Uses up the limit, so that the next one waits.
    let sent = service.request("late@example.org");
    service.publish(sent.message()).await;
    let late = service.request("late@example.org");
    service.publish(late.message()).await;
    service
        .reaches(&late, proto::DeliveryState::Throttled)
        .await;
    service.publish(late.revocation()).await;
    service
        .reaches(&late, proto::DeliveryState::Cancelled)
        .await;

    // Both in one batch.
    let both = service.request("both@example.org");
    service
        .publish_all(&[both.message(), both.revocation()])
        .await;
    let state = service.delivery(&both).await.unwrap().state();
    assert!(
        matches!(
            state,
            proto::DeliveryState::Cancelled | proto::DeliveryState::Sent
        ),
        "{state:?}"
    );
    service.reaches(&sent, proto::DeliveryState::Sent).await;
    assert!(service.smtp.taken_for("early@example.org").is_empty());
    assert_eq!(service.smtp.taken_for("late@example.org").len(), 1);
    eventually("the cancellation is published", async || {
        service.published(&late) == [DeliveryState::Throttled, DeliveryState::Cancelled]
    })
    .await;
    service.stop().await;
}

#[tokio::test]
async fn a_revocation_leaves_later_emails_alone() {
    let service = Service::start(&["--recipient-gap=0s"]).await;
    let first = service.request("zoe@example.org");
    let mut second = first.clone();
    second.event_id = Uuid::now_v7();
    second.requested.send_number = 2;
    second.seal();
    service.publish(first.revocation()).await;
    service
        .publish_all(&[first.message(), second.message()])
        .await;
    service
        .reaches(&first, proto::DeliveryState::Cancelled)
        .await;
    service.reaches(&second, proto::DeliveryState::Sent).await;
    service.stop().await;
}

#[tokio::test]
async fn poison_is_parked_and_neighbours_go_through() {
    let service = Service::start(&[]).await;
    let good: Vec<_> = (0..5)
        .map(|n| service.request(&format!("good{n}@example.org")))
        .collect();
    let mut bad_address = service.request("not an address");
    bad_address.requested.recipient = "ann@example.org\r\nRCPT TO:<eve@example.org>".to_owned();
    let mut nul = service.request("nul@example.org");
    nul.requested.given_name = "Zo\0".to_owned();
    let mut no_token = service.request("token@example.org");
    no_token.requested.sealed_token = None;
    let mut no_kind = service.request("kind@example.org");
    no_kind.requested.kind = 77;
    let impossible_times = [1_500_000_000, i32::MAX, i32::MIN].map(|nanos| {
        let mut request = service.request("time@example.org");
        request.requested.expire_time.as_mut().unwrap().nanos = nanos;
        request.message()
    });
    let mut garbage = good[0].message();
    garbage.event_id = Uuid::now_v7();
    garbage.body = vec![0xff; 20];
    let mut newer = service.request("newer@example.org").message();
    newer.body = with_schema_version(&newer.body, 2);
    let unknown = envelope(
        Uuid::now_v7(),
        good[0].organization_id,
        routing_key::MAIL_REQUESTED,
        Payload::MailRequested(usher_proto::event::v1::MailRequested::default()),
    );

    let [late, far, before] = impossible_times;
    let poison = [
        (
            bad_address.message(),
            "recipient: not an email address (RFC 5321)",
        ),
        (nul.message(), "given_name is malformed"),
        (no_token.message(), "sealed_token is missing"),
        (no_kind.message(), "kind is malformed"),
        (garbage, "the body is not a usher.event.v1.Event"),
        (
            newer,
            "schema_version 2 is newer than this service knows; upgrade it, then replay",
        ),
        (
            unknown,
            "the payload is not supported by this version; upgrade it, then replay",
        ),
        (late, "expire_time is malformed"),
        (far, "expire_time is malformed"),
        (before, "expire_time is malformed"),
    ];
    let reasons = poison
        .iter()
        .map(|(message, reason)| (message.event_id, (*reason).to_owned()))
        .collect::<HashMap<_, _>>();
    let mut batch: Vec<_> = poison.into_iter().map(|(message, _)| message).collect();
    batch.extend(good.iter().map(Request::message));
    // Parked is acknowledged, too: nothing of it comes again.
    service.publish_all(&batch).await;
    for request in &good {
        service.reaches(request, proto::DeliveryState::Sent).await;
    }
    assert_eq!(service.smtp.taken().len(), good.len());
    assert_eq!(service.dead_letters(reasons.len()).await, reasons);
    service.stop().await;
}

fn with_schema_version(body: &[u8], version: u32) -> Vec<u8> {
    use prost::Message as _;
    let mut event = Event::decode(body).unwrap();
    event.schema_version = version;
    event.encode_to_vec()
}

#[tokio::test]
async fn a_token_goes_only_to_whom_it_was_sealed_for() {
    let service = Service::start(&["--recipient-gap=0s"]).await;
    let original = service.request("ann@example.org");
    // Whoever can write to the broker has read the event, and asks for another email with its token.
    let altered = |change: fn(&mut Request)| {
        let mut request = original.clone();
        request.event_id = Uuid::now_v7();
        request.requested.send_number = 2;
        change(&mut request);
        request
    };
    let forged = [
        altered(|request| request.requested.recipient = "mallory@example.org".to_owned()),
        altered(|request| {
            request.requested.send_number = 3;
            let organization = request.requested.organization.as_mut().unwrap();
            organization.portal_url = "https://mallory.example".to_owned();
        }),
    ];
    service.publish(original.message()).await;
    for request in &forged {
        service.publish(request.message()).await;
    }
    service.reaches(&original, proto::DeliveryState::Sent).await;
    for request in &forged {
        // It may also be a key that is missing: it is tried again until its link expires.
        eventually("it cannot be opened", async || {
            let delivery = service.delivery(request).await;
            delivery.is_some_and(|delivery| delivery.reason.contains("no private key opens"))
        })
        .await;
    }
    assert_eq!(service.smtp.taken_for("ann@example.org").len(), 1);
    assert!(service.smtp.taken_for("mallory@example.org").is_empty());
    service.stop().await;
}
