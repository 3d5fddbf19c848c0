//! One trace from the caller's RPC to the SMTP reply, and back to the invitation: both programs, real servers,
//! and a collector that keeps the spans that it gets.

#![expect(clippy::expect_used, reason = "tests say what went wrong by panicking")]

mod collector;
mod smtp;

use std::time::Duration;

use tonic::{Request, transport::Channel};
use usher_proto::account::v1::{
    Account, CreateAccountRequest, CreateOrganizationRequest, Organization,
    account_service_client::AccountServiceClient,
    organization_service_client::OrganizationServiceClient,
};
use usher_tests::{BrokerNames, Database, Program, ServiceName, setting, token_keys};

use crate::collector::{Collector, Span};

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER_SPAN_ID: &str = "00f067aa0ba902b7";

/// What must never be in a log line or a span.
const PERSONAL: [&str; 4] = ["aurelia", "vexley-brandt", "client.example", "token="];

/// Longer than the way to the mailbox and back takes unless something is stuck.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_leads_from_the_call_to_the_smtp_reply_and_back() {
    let collector = Collector::start().await;
    let installation = Installation::start(&collector).await;

    create_account(&installation.account_svc.grpc_url).await;

    let trace = tokio::time::timeout(PATIENCE, collector.trace_until(TRACE_ID, reported_as_sent))
        .await
        .unwrap_or_else(|_| panic!("incomplete: {:#?}", collector.spans_of(TRACE_ID)));
    let find = |service: &str, name: &str, parent: &Span, key: &str, value: &str| {
        let found = trace.iter().find(|span| {
            span.service == service
                && span.name == name
                && span.parent_id == parent.id
                && span.attribute(key) == value
        });
        found
            .unwrap_or_else(|| panic!("no {name} of {service} below {parent:?} in {trace:#?}"))
            .clone()
    };
    let caller = Span::of_caller(CALLER_SPAN_ID);
    let method = "usher.account.v1.AccountService/CreateAccount";
    let rpc = find("account-svc", method, &caller, "rpc.grpc.status_code", "0");
    let event_type = "event.type";
    let requested = "invitation.requested.v1";
    let publish = find("account-svc", "publish", &rpc, event_type, requested);
    let consume = find("notify-svc", "consume", &publish, event_type, requested);
    let deliver = find("notify-svc", "deliver", &consume, "smtp.status", "250");
    let changed = "delivery.changed.v1";
    let report = trace
        .iter()
        .find(|span| is_report(span))
        .expect("waited for");
    let published = find("notify-svc", "publish", &consume, event_type, changed);
    assert_eq!(report.attribute(event_type), changed);
    assert_eq!(deliver.attribute("delivery.state"), "SENT");
    assert!(!published.id.is_empty());

    assert_logs_lead_to_the_trace(&installation);
    assert_nothing_personal(&installation, &collector);
    installation.stop().await;
}

/// The end of the way: account-svc takes over that the email was sent.
fn reported_as_sent(trace: &[Span]) -> bool {
    trace.iter().any(is_report)
        && trace.iter().any(|span| span.name == "deliver")
        && trace
            .iter()
            .any(|span| span.name.ends_with("/CreateAccount"))
}

fn is_report(span: &Span) -> bool {
    span.service == "account-svc"
        && span.name == "consume"
        && span.attribute("delivery.state") == "SENT"
}

fn assert_logs_lead_to_the_trace(installation: &Installation) {
    let marked = format!("\"trace.id\":\"{TRACE_ID}\"");
    for (program, message) in [
        (&installation.account_svc, "call finished"),
        (&installation.notify_svc, "delivery attempted"),
    ] {
        let log = program.log();
        assert!(
            log.iter()
                .any(|line| line.contains(message) && line.contains(&marked)),
            "no line `{message}` with the trace in {log:#?}"
        );
    }
}

fn assert_nothing_personal(installation: &Installation, collector: &Collector) {
    let spans = format!("{:?}", collector.spans()).to_lowercase();
    for personal in PERSONAL {
        assert!(!spans.contains(personal), "{personal} in a span");
        for program in [&installation.account_svc, &installation.notify_svc] {
            for line in program.log() {
                assert!(!line.to_lowercase().contains(personal), "{line}");
            }
        }
    }
}

async fn create_account(url: &str) {
    let channel = Channel::from_shared(url.to_owned())
        .expect("URL")
        .connect()
        .await
        .expect("account-svc");
    let organization = Organization {
        slug: "traced".to_owned(),
        display_name: "Traced".to_owned(),
        portal_url: "https://portal.example".to_owned(),
        ..Default::default()
    };
    let organization_id = OrganizationServiceClient::new(channel.clone())
        .create_organization(CreateOrganizationRequest {
            organization: Some(organization),
            ..Default::default()
        })
        .await
        .expect("organization")
        .into_inner()
        .organization
        .expect("in the answer")
        .organization_id;

    let account = Account {
        given_name: "Aurelia".to_owned(),
        family_name: "Vexley-Brandt".to_owned(),
        email: Some("aurelia.vexley-brandt@client.example".to_owned()),
        ..Default::default()
    };
    let mut request = Request::new(CreateAccountRequest {
        organization_id,
        account: Some(account),
        ..Default::default()
    });
    let traceparent = format!("00-{TRACE_ID}-{CALLER_SPAN_ID}-01");
    request
        .metadata_mut()
        .insert("traceparent", traceparent.parse().expect("header"));
    AccountServiceClient::new(channel)
        .create_account(request)
        .await
        .expect("account");
}

/// Both services with all that they need.
struct Installation {
    account_svc: Program,
    notify_svc: Program,
    _databases: [Database; 2],
    names: BrokerNames,
}

impl Installation {
    async fn start(collector: &Collector) -> Self {
        let names = BrokerNames::create("trace");
        let account_database = Database::create(ServiceName::Account).await;
        let account_database = account_database.expect("database");
        let notify_database = Database::create(ServiceName::Notify).await;
        let notify_database = notify_database.expect("database");
        let (private_key, public_key) = token_keys().await.expect("keys");
        let amqp_url = setting("AMQP_URL").expect("broker");
        let smtp_url = smtp::accept_everything().await;
        let common = [
            ("AMQP_URL", amqp_url.as_str()),
            ("AMQP_PREFIX", &names.prefix),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url),
            // Milliseconds that spans wait to be sent.
            ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ];
        let account = [
            ("TOKEN_PUBLIC_KEY", public_key.as_str()),
            ("PORTAL_ORIGINS", "https://portal.example"),
        ];
        let notify = [
            ("TOKEN_PRIVATE_KEY", private_key.as_str()),
            ("SMTP_URL", &smtp_url),
            ("SMTP_EHLO_NAME", "usher.example"),
            ("MAIL_FROM", "no-reply@usher.example"),
        ];
        Self {
            account_svc: serve(&account_database, &[&common[..], &account].concat()).await,
            notify_svc: serve(&notify_database, &[&common[..], &notify].concat()).await,
            _databases: [account_database, notify_database],
            names,
        }
    }

    async fn stop(self) {
        self.account_svc.kill().await.expect("kill");
        self.notify_svc.kill().await.expect("kill");
        self.names.remove().await.expect("delete");
    }
}

async fn serve(database: &Database, settings: &[(&str, &str)]) -> Program {
    Program::migrate_and_serve(database, settings)
        .await
        .expect("serve")
}
