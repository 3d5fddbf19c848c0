//! The relay refuses, stalls and hangs up, at every step.

use rstest::rstest;
use usher_proto::{event::v1::DeliveryState, notify::v1 as proto};

use crate::{
    requests::instant,
    scripted_smtp::{At, Fault},
    support::{Service, eventually},
};

/// What is not the email's fault costs no attempt, and a neighbour goes through.
#[rstest]
#[case::refused_at_connect(At::Connect, Fault::Reply("421 4.3.2 too busy"), 1)]
#[case::cut_at_connect(At::Connect, Fault::Cut, 1)]
#[case::stalled_at_connect(At::Connect, Fault::Stall, 1)]
#[case::refused_at_ehlo(At::Ehlo, Fault::Reply("451 4.3.0 try later"), 1)]
#[case::cut_at_ehlo(At::Ehlo, Fault::Cut, 1)]
#[case::cut_at_mail(At::Mail, Fault::Cut, 1)]
#[case::stalled_at_mail(At::Mail, Fault::Stall, 1)]
#[case::cut_at_rcpt(At::Rcpt, Fault::Cut, 1)]
#[case::stalled_at_rcpt(At::Rcpt, Fault::Stall, 1)]
#[case::cut_at_data(At::Data, Fault::Cut, 1)]
#[case::stalled_at_data(At::Data, Fault::Stall, 1)]
#[case::refused_at_mail(At::Mail, Fault::Reply("451 4.3.0 try later"), 1)]
#[case::closing_at_mail(At::Mail, Fault::Reply("421 4.3.2 closing"), 1)]
#[case::sender_refused(At::Mail, Fault::Reply("553 5.7.1 not your address"), 1)]
#[case::closing_at_rcpt(At::Rcpt, Fault::Reply("421 4.3.2 closing"), 1)]
#[case::closing_at_dot(At::Dot, Fault::Reply("421 4.3.2 closing"), 1)]
#[case::greylisted(At::Rcpt, Fault::Reply("450 4.2.0 greylisted"), 2)]
#[case::over_quota(At::Rcpt, Fault::Reply("552 5.2.2 over quota"), 2)]
#[case::unclear(At::Rcpt, Fault::Reply("550 <zoe@example.org> unknown"), 2)]
#[case::relay_denied(At::Rcpt, Fault::Reply("554 5.7.1 relay access denied"), 2)]
#[case::blocked(At::Dot, Fault::Reply("550 5.7.1 blocked"), 2)]
#[case::refused_at_data(At::Data, Fault::Reply("451 4.3.0 try later"), 2)]
#[case::refused_at_dot(At::Dot, Fault::Reply("452 4.3.1 no space"), 2)]
#[tokio::test]
async fn transient_faults_end_in_one_email(
    #[case] at: At,
    #[case] fault: Fault,
    #[case] attempts: u32,
) {
    let service = Service::start(&[]).await;
    service.smtp.fail_once(at, fault);
    let request = service.request("zoe@example.org");
    service.publish(request.message()).await;
    let delivery = service.reaches(&request, proto::DeliveryState::Sent).await;
    assert_eq!(delivery.attempt_count, attempts);
    assert!(!service.smtp.has_faults_left());
    assert_eq!(service.smtp.taken().len(), 1);

    let neighbour = service.request("neighbour@example.org");
    service.publish(neighbour.message()).await;
    service
        .reaches(&neighbour, proto::DeliveryState::Sent)
        .await;
    assert_eq!(service.smtp.taken().len(), 2);
    service.stop().await;
}

/// Otherwise a relay, or who is in its place before TLS, could fill the memory.
#[rstest]
#[case::greeting(At::Connect, 1)]
#[case::ehlo(At::Ehlo, 1)]
#[case::rcpt(At::Rcpt, 1)]
#[case::data(At::Data, 1)]
#[case::dot(At::Dot, 2)]
#[tokio::test]
async fn a_reply_without_an_end_is_not_read_on(#[case] at: At, #[case] attempts: u32) {
    let service = Service::start(&[
        "--smtp-command-timeout=10s",
        "--smtp-data-timeout=10s",
        "--send-lease=1m",
    ])
    .await;
    service.smtp.fail_once(at, Fault::Flood);
    let request = service.request("zoe@example.org");
    service.publish(request.message()).await;
    let delivery = service.reaches(&request, proto::DeliveryState::Sent).await;
    assert_eq!(delivery.attempt_count, attempts);
    assert!(!service.smtp.has_faults_left());
    assert_eq!(service.smtp.swallowed_floods(), 0);
    service.stop().await;
}

/// A relay may pass on what the recipient's server says: nothing about our own login.
#[rstest]
#[case::credentials(At::Rcpt, "535 5.7.8 bad credentials")]
#[case::required(At::Data, "530 5.7.0 log in first")]
#[case::temporary(At::Rcpt, "454 4.7.0 temporary authentication failure")]
#[case::content(At::Dot, "538 5.7.11 encryption required")]
#[tokio::test]
async fn a_recipient_whose_server_wants_a_login_delays_nobody_else(
    #[case] at: At,
    #[case] reply: &'static str,
) {
    let service = Service::start(&[]).await;
    for _ in 0..20 {
        service
            .smtp
            .fail_once_for("ann@example.org", at, Fault::Reply(reply));
    }
    let refused = service.request("ann@example.org");
    service.publish(refused.message()).await;
    eventually("it is refused for now", async || {
        let delivery = service
            .reaches(&refused, proto::DeliveryState::Queued)
            .await;
        delivery.attempt_count > 0 && reply.starts_with(&delivery.smtp_status)
    })
    .await;
    let mut other = service.request("zoe@example.org");
    other.organization_id = uuid::Uuid::now_v7();
    other.seal();
    service.publish(other.message()).await;
    let sent = service.reaches(&other, proto::DeliveryState::Sent).await;
    let waited = instant(sent.sent_time) - instant(sent.create_time);
    assert!(waited < time::Duration::seconds(2), "{waited}");
    service.stop().await;
}

#[rstest]
#[case::no_domain(At::Rcpt, "550 5.1.2 no such domain", false)]
#[case::content(At::Dot, "554 5.6.0 rejected", false)]
#[case::no_mailbox(At::Rcpt, "550 5.1.1 <zoe@example.org> unknown", true)]
#[case::moved(At::Rcpt, "551 5.1.6 moved", true)]
#[case::null_mx(At::Rcpt, "556 5.1.10 takes no mail", true)]
#[tokio::test]
async fn permanent_refusals_fail_and_dead_mailboxes_are_suppressed(
    #[case] at: At,
    #[case] reply: &'static str,
    #[case] dead: bool,
) {
    let service = Service::start(&["--recipient-gap=0s"]).await;
    service.smtp.fail_once(at, Fault::Reply(reply));
    let request = service.request("zoe@example.org");
    service.publish(request.message()).await;
    let delivery = service
        .reaches(&request, proto::DeliveryState::Failed)
        .await;
    assert_eq!(delivery.attempt_count, 1);
    assert!(
        reply.starts_with(&delivery.smtp_status),
        "{}",
        delivery.smtp_status
    );
    assert!(!delivery.smtp_status.contains('@') && !delivery.reason.contains('@'));

    let again = service.request("Zoe@example.org");
    service.publish(again.message()).await;
    let expected = if dead {
        proto::DeliveryState::Suppressed
    } else {
        proto::DeliveryState::Sent
    };
    service.reaches(&again, expected).await;

    // Another organization has a list of its own.
    let mut elsewhere = service.request("zoe@example.org");
    elsewhere.organization_id = uuid::Uuid::now_v7();
    elsewhere.seal();
    service.publish(elsewhere.message()).await;
    service
        .reaches(&elsewhere, proto::DeliveryState::Sent)
        .await;
    service.stop().await;
}

#[rstest]
#[case::cut(Fault::TakeAndCut)]
#[case::stall(Fault::Stall)]
#[tokio::test]
async fn an_answer_lost_after_the_final_dot_is_unknown_and_sent_once_more(#[case] fault: Fault) {
    let service = Service::start(&[]).await;
    service.smtp.fail_once(At::Dot, fault);
    let request = service.request("zoe@example.org");
    service.publish(request.message()).await;
    let delivery = service.reaches(&request, proto::DeliveryState::Sent).await;
    assert_eq!(delivery.attempt_count, 2);
    let taken = service.smtp.taken();
    assert_eq!(taken.len(), if fault == Fault::TakeAndCut { 2 } else { 1 });
    // A repetition is recognizable as one.
    for mail in &taken {
        let mail = mail_parser::MessageParser::default()
            .parse(&mail.raw)
            .unwrap();
        assert_eq!(
            mail.message_id(),
            Some(delivery.message_id.trim_matches(['<', '>']))
        );
    }
    eventually("all states are published", async || {
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

#[tokio::test]
async fn answers_lost_twice_end_the_attempts() {
    let service = Service::start(&[]).await;
    service.smtp.fail_once(At::Dot, Fault::TakeAndCut);
    service.smtp.fail_once(At::Dot, Fault::TakeAndCut);
    let request = service.request("zoe@example.org");
    service.publish(request.message()).await;
    service
        .reaches(&request, proto::DeliveryState::Failed)
        .await;
    assert_eq!(service.smtp.taken().len(), 2);
    service.stop().await;
}

#[tokio::test]
async fn the_other_policy_gives_an_email_up_when_its_answer_was_lost() {
    let service = Service::start(&["--unknown-outcome=fail"]).await;
    service.smtp.fail_once(At::Dot, Fault::TakeAndCut);
    let request = service.request("zoe@example.org");
    service.publish(request.message()).await;
    let delivery = service
        .reaches(&request, proto::DeliveryState::Failed)
        .await;
    assert!(delivery.reason.contains("answer was lost"));
    assert_eq!(service.smtp.taken().len(), 1);
    service.stop().await;
}

#[tokio::test]
async fn an_expired_email_is_not_sent() {
    let service = Service::start(&[]).await;
    let request = service
        .request("zoe@example.org")
        .expiring_in(-time::Duration::SECOND);
    service.publish(request.message()).await;
    let delivery = service
        .reaches(&request, proto::DeliveryState::Failed)
        .await;
    assert!(delivery.reason.contains("expired"), "{}", delivery.reason);
    assert!(service.smtp.taken().is_empty());
    service.stop().await;
}

#[tokio::test]
async fn retries_end_when_the_link_expires() {
    let service = Service::start(&["--retry-base=500ms"]).await;
    for _ in 0..20 {
        service
            .smtp
            .fail_once(At::Rcpt, Fault::Reply("450 4.2.0 later"));
    }
    let request = service
        .request("zoe@example.org")
        .expiring_in(time::Duration::seconds(3));
    service.publish(request.message()).await;
    let delivery = service
        .reaches(&request, proto::DeliveryState::Failed)
        .await;
    assert!(delivery.attempt_count > 1, "{}", delivery.attempt_count);
    assert_eq!(delivery.smtp_status, "450 4.2.0");
    service.stop().await;
}
