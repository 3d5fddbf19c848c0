//! From the queue to the relay: nobody waits for somebody else's email.

use notify_svc::{
    domain::Reply,
    mail::{MailConnection, MailTransport, OutgoingMail, SendError},
    smtp::SmtpTransport,
};
use usher_proto::{event::v1 as event, notify::v1 as proto};
use usher_runtime::{bus::EventBus, seal::PrivateKey};

use crate::{
    requests::{Request, instant},
    scripted_smtp::{At, Fault, ScriptedSmtp},
    support::{Service, database, eventually},
};

/// Sends many emails that the relay does not answer.
async fn stall(service: &Service, name: &str, class: event::MailClass) -> Vec<Request> {
    let requests: Vec<_> = (0..5)
        .map(|n| {
            let recipient = format!("{name}{n}@example.org");
            service
                .smtp
                .fail_once_for(&recipient, At::Dot, Fault::Stall);
            let mut request = service.request(&recipient);
            request.requested.mail_class = class.into();
            request
        })
        .collect();
    let messages: Vec<_> = requests.iter().map(Request::message).collect();
    service.publish_all(&messages).await;
    requests
}

#[tokio::test]
async fn each_class_leaves_connections_to_those_that_are_more_urgent() {
    let service = Service::start(&[
        "--smtp-max-connections=4",
        "--smtp-data-timeout=3s",
        "--send-lease=20s",
    ])
    .await;
    let mut slow = stall(&service, "bulk", event::MailClass::Bulk).await;
    eventually("bulk mail is under way", async || {
        service.smtp.most_open() == 2
    })
    .await;
    let urgent = service.request("interactive@example.org");
    service.publish(urgent.message()).await;
    let waited = wait_of(&service, &urgent).await;
    assert!(waited < time::Duration::seconds(2), "{waited}");

    slow.extend(stall(&service, "interactive", event::MailClass::Interactive).await);
    eventually("interactive mail is under way", async || {
        !service.smtp.has_fault_for("interactive0@example.org")
    })
    .await;
    let mut security = service.request("security@example.org");
    security.requested.mail_class = event::MailClass::Security.into();
    service.publish(security.message()).await;
    let waited = wait_of(&service, &security).await;
    assert!(waited < time::Duration::seconds(2), "{waited}");
    for request in &slow {
        service.reaches(request, proto::DeliveryState::Sent).await;
    }
    assert_eq!(service.smtp.most_open(), 4);
    service.stop().await;
}

/// From the request to the relay's answer.
async fn wait_of(service: &Service, request: &Request) -> time::Duration {
    let sent = service.reaches(request, proto::DeliveryState::Sent).await;
    instant(sent.sent_time) - instant(sent.create_time)
}

/// Panics on some emails.
#[derive(Clone)]
struct Panicking(SmtpTransport);

struct PanickingConnection(<SmtpTransport as MailTransport>::Connection);

impl MailTransport for Panicking {
    type Connection = PanickingConnection;

    fn name(&self) -> String {
        self.0.name()
    }

    async fn connect(&self) -> Result<PanickingConnection, SendError> {
        Ok(PanickingConnection(self.0.connect().await?))
    }
}

impl MailConnection for PanickingConnection {
    async fn send(self, mail: &OutgoingMail) -> Result<Reply, SendError> {
        assert!(!mail.recipient.user().starts_with("panic"), "on purpose");
        self.0.send(mail).await
    }
}

#[tokio::test]
async fn an_email_that_panics_ends_and_its_neighbours_go_on() {
    let (key, _) = PrivateKey::generate().unwrap();
    let smtp = ScriptedSmtp::start().await;
    let bus = EventBus::in_process();
    let settings = ["--smtp-max-connections=1"];
    let database = database().await;
    let service = Service::start_through(database, bus, smtp, key, &settings, Panicking).await;
    let faulty: Vec<_> = (0..3)
        .map(|n| service.request(&format!("panic{n}@example.org")).bulk())
        .collect();
    let messages: Vec<_> = faulty.iter().map(Request::message).collect();
    service.publish_all(&messages).await;
    let neighbour = service.request("neighbour@example.org");
    service.publish(neighbour.message()).await;
    let waited = wait_of(&service, &neighbour).await;
    assert!(waited < time::Duration::seconds(2), "{waited}");
    for request in &faulty {
        let failed = service.reaches(request, proto::DeliveryState::Failed).await;
        assert!(
            failed.reason.contains("may have arrived"),
            "{}",
            failed.reason
        );
        assert_eq!(failed.attempt_count, 2);
    }
    service.stop().await;
}

/// An email waits for what an operator has to mend, and nothing of it is lost.
#[tokio::test]
async fn a_wrong_key_burns_no_email() {
    let (right, _) = PrivateKey::generate().unwrap();
    let service = Service::start(&[]).await;
    let waiting = Request::new(right.public_key(), "zoe@example.org");
    service.publish(waiting.message()).await;
    eventually("staff see why it waits", async || {
        let delivery = service.delivery(&waiting).await;
        delivery.is_some_and(|delivery| delivery.reason.contains("no private key"))
    })
    .await;
    let other = service.request("other@example.org");
    service.publish(other.message()).await;
    service.reaches(&other, proto::DeliveryState::Sent).await;
    let delivery = service.delivery(&waiting).await.unwrap();
    assert_eq!(delivery.state(), proto::DeliveryState::Queued);
    assert!(delivery.next_attempt_time.is_some());

    let service = service.restart_with_key(right, &[]).await;
    let sent = service.reaches(&waiting, proto::DeliveryState::Sent).await;
    assert_eq!((sent.attempt_count, sent.reason.as_str()), (1, ""));
    service.stop().await;
}

/// While a rollout is under way, an older version sees what a newer one has taken in.
#[tokio::test]
async fn a_kind_of_a_newer_version_waits_for_it() {
    let service = Service::start(&["--recipient-limit=1/1s"]).await;
    let [first, request] = [(); 2].map(|()| service.request("zoe@example.org"));
    service
        .publish_all(&[first.message(), request.message()])
        .await;
    service
        .reaches(&request, proto::DeliveryState::Throttled)
        .await;
    let mut admin = service.database.admin().await.unwrap();
    let kind = "UPDATE deliveries SET kind = $1 WHERE invitation_id = $2::uuid";
    let mut set = async |name: &str| {
        let query = sqlx::query(kind).bind(name.to_owned());
        let query = query.bind(request.requested.invitation_id.clone());
        query.execute(&mut admin).await.unwrap();
    };
    set("NEWER").await;
    eventually("it waits", async || {
        let delivery = service.delivery(&request).await.unwrap();
        delivery.reason.contains("newer")
    })
    .await;
    set("ACTIVATION").await;
    service.reaches(&request, proto::DeliveryState::Sent).await;
    service.stop().await;
}

const DENIED: Fault = Fault::Reply("554 5.7.1 relay access denied");

/// A relay that may not be used says so of each email: that is not the emails' fault.
#[tokio::test]
async fn a_relay_that_denies_everybody_burns_no_email() {
    let service = Service::start(&[]).await;
    for _ in 0..7 {
        service.smtp.fail_once(At::Rcpt, DENIED);
    }
    let requests: Vec<_> = (0..5)
        .map(|n| service.request(&format!("client{n}@example.org")))
        .collect();
    let messages: Vec<_> = requests.iter().map(Request::message).collect();
    service.publish_all(&messages).await;
    for request in &requests {
        service.reaches(request, proto::DeliveryState::Sent).await;
        let failed = event::DeliveryState::Failed;
        assert!(!service.published(request).contains(&failed));
    }
    service.stop().await;
}

/// Nor a single one, however often it is denied.
#[tokio::test]
async fn a_relay_that_takes_nothing_says_nothing_of_an_email() {
    let service = Service::start(&["--retry-base=100ms", "--retry-max=200ms"]).await;
    for _ in 0..7 {
        service.smtp.fail_once(At::Rcpt, DENIED);
    }
    let request = service.request("zoe@example.org");
    service.publish(request.message()).await;
    let sent = service.reaches(&request, proto::DeliveryState::Sent).await;
    assert_eq!(sent.attempt_count, 8);
    let failed = event::DeliveryState::Failed;
    assert!(!service.published(&request).contains(&failed));
    service.stop().await;
}

/// One that goes away with each email is no better.
#[tokio::test]
async fn a_relay_that_goes_away_with_each_email_cannot_be_used() {
    let service = Service::start(&["--retry-base=100ms"]).await;
    for _ in 0..4 {
        service
            .smtp
            .fail_once(At::Rcpt, Fault::Reply("421 4.7.0 too much"));
    }
    let requests: Vec<_> = (0..4)
        .map(|n| service.request(&format!("client{n}@example.org")))
        .collect();
    let messages: Vec<_> = requests.iter().map(Request::message).collect();
    service.publish_all(&messages).await;
    for request in &requests {
        let sent = service.reaches(request, proto::DeliveryState::Sent).await;
        assert_eq!(sent.attempt_count, 1);
    }
    // Told once, and what came of it.
    eventually("it is told", async || {
        let told = requests.iter().map(|request| service.published(request));
        let sent = [
            event::DeliveryState::Queued,
            event::DeliveryState::Queued,
            event::DeliveryState::Sent,
        ];
        told.into_iter().any(|states| states == sent)
    })
    .await;
    service.stop().await;
}

#[tokio::test]
async fn an_email_that_alone_is_denied_fails() {
    let service = Service::start(&["--retry-base=1s"]).await;
    for _ in 0..2 {
        service
            .smtp
            .fail_once_for("denied@example.org", At::Rcpt, DENIED);
    }
    let denied = service.request("denied@example.org");
    service.publish(denied.message()).await;
    eventually("it is refused once", async || {
        let delivery = service.delivery(&denied).await;
        delivery.is_some_and(|delivery| delivery.attempt_count == 1)
    })
    .await;
    let other = service.request("other@example.org");
    service.publish(other.message()).await;
    service.reaches(&other, proto::DeliveryState::Sent).await;
    let failed = service.reaches(&denied, proto::DeliveryState::Failed).await;
    assert_eq!(failed.attempt_count, 2);
    assert_eq!(failed.smtp_status, "554 5.7.1");
    service.stop().await;
}
