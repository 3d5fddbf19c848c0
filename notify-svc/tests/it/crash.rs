//! A process ends without warning in the middle of its work, and another one takes over.

use std::{collections::HashMap, env};

use secrecy::SecretString;
use tokio::runtime::Runtime;
use usher_proto::notify::v1 as proto;
use usher_runtime::bus::EventBus;
use uuid::Uuid;

use crate::{
    requests::Request,
    support::{Service, database, eventually},
};

const EMAILS: usize = 300;
const CONNECTIONS: usize = 8;

/// A runtime that is dropped takes its tasks away wherever they are: no outcome is recorded, nothing is
/// acknowledged, connections break. `tests/e2e` does the same to the real programs with `kill -9`.
#[test]
fn a_crash_loses_no_email_and_repeats_only_what_was_being_handed_over() {
    let url = env::var("AMQP_URL").expect("set AMQP_URL to a RabbitMQ server (make test does)");
    let url = SecretString::from(url);
    let prefix = format!("test-{}-", Uuid::now_v7().simple());
    let settings = [format!("--smtp-max-connections={CONNECTIONS}")];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let bus = || EventBus::rabbitmq_with_prefix(&url, "notify-test", &prefix).unwrap();

    // The SMTP server and the test live longer than the service.
    let surroundings = Runtime::new().unwrap();
    let smtp = surroundings.block_on(crate::scripted_smtp::ScriptedSmtp::start());
    let (private_key, _) = usher_runtime::seal::PrivateKey::generate().unwrap();

    let doomed = Runtime::new().unwrap();
    let (service, requests) = doomed.block_on(async {
        let database = database().await;
        let service = Service::start_with(
            database,
            bus(),
            smtp.clone(),
            private_key.clone(),
            &settings,
        )
        .await;
        service.bus.connected().await;
        let requests: Vec<_> = (0..EMAILS)
            .map(|n| service.request(&format!("client{n}@example.org")))
            .collect();
        let messages: Vec<_> = requests.iter().map(Request::message).collect();
        eventually("the queues are declared", async || {
            service
                .bus
                .publish(&messages[..1])
                .await
                .iter()
                .all(Result::is_ok)
        })
        .await;
        service.publish_all(&messages).await;
        eventually("a third is sent", async || smtp.taken_count() > EMAILS / 3).await;
        (service, requests)
    });
    let database = service.abandon();
    doomed.shutdown_background();

    surroundings.block_on(async {
        let before = smtp.taken_count();
        assert!(before < EMAILS, "the crash came too late to show anything");
        let service =
            Service::start_with(database, bus(), smtp.clone(), private_key, &settings).await;
        for request in &requests {
            service.reaches(request, proto::DeliveryState::Sent).await;
        }
        let mut message_ids: HashMap<String, Vec<String>> = HashMap::new();
        for mail in smtp.taken() {
            let parsed = mail_parser::MessageParser::default()
                .parse(&mail.raw)
                .unwrap();
            let message_id = parsed.message_id().unwrap().to_owned();
            message_ids
                .entry(mail.recipient)
                .or_default()
                .push(message_id);
        }
        assert_eq!(message_ids.len(), EMAILS);
        let repeated: Vec<_> = message_ids.values().filter(|ids| ids.len() > 1).collect();
        // Of each connection one that it was handing over, and one that was not recorded yet.
        assert!(
            repeated.len() <= 2 * CONNECTIONS,
            "{} repeated",
            repeated.len()
        );
        for ids in repeated {
            assert_eq!(ids.len(), 2);
            assert_eq!(ids[0], ids[1], "a repetition has the same Message-ID");
        }
        service.stop().await;
    });
}
