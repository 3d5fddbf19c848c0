//! What operators see of an email: one trace, and nothing personal.

use std::{
    io,
    sync::{LazyLock, Mutex},
};

use opentelemetry::{Value, global, trace::TracerProvider as _};
use opentelemetry_sdk::{
    propagation::TraceContextPropagator,
    trace::{InMemorySpanExporter, SdkTracerProvider, SpanData},
};
use tracing_subscriber::{
    EnvFilter, Layer as _, fmt::MakeWriter, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};
use usher_proto::{event::v1::DeliveryState, notify::v1 as proto};
use usher_runtime::trace_context::TraceContext;
use usher_tests::in_own_process;

use crate::{
    scripted_smtp::{At, Fault},
    support::{Service, eventually},
};

static OBSERVED: LazyLock<Observed> = LazyLock::new(Observed::start);

/// Everything that this process logged and traced. Tests that look at it run in a process of their own.
struct Observed {
    spans: InMemorySpanExporter,
    log: &'static Mutex<Vec<u8>>,
}

/// Begins to watch; every service does it first.
pub fn observe() {
    LazyLock::force(&OBSERVED);
}

/// Whether this process has logged `text`.
pub fn logged(text: &str) -> bool {
    OBSERVED.log().contains(text)
}

/// How often this process has logged `text`.
pub fn count_logged(text: &str) -> usize {
    OBSERVED.log().matches(text).count()
}

impl Observed {
    fn start() -> Self {
        static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());
        global::set_text_map_propagator(TraceContextPropagator::new());
        let spans = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder()
            .with_simple_exporter(spans.clone())
            .build();
        let lines = tracing_subscriber::fmt::layer()
            .json()
            .with_writer(Log(&LOG))
            // What an operator turns on when something is wrong.
            .with_filter(EnvFilter::new("debug,h2=info,hyper=info,hyper_util=info,tower=info"));
        let traces = tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("test"))
            .with_filter(EnvFilter::new("info"));
        tracing_subscriber::registry()
            .with(lines)
            .with(traces)
            .init();
        Self { spans, log: &LOG }
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&self.log.lock().unwrap()).into_owned()
    }
}

#[derive(Clone, Copy)]
struct Log(&'static Mutex<Vec<u8>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        *self
    }
}

#[tokio::test]
async fn one_trace_leads_from_the_event_to_the_reply_and_back() {
    if !in_own_process("telemetry::one_trace_leads_from_the_event_to_the_reply_and_back").await {
        return;
    }
    let service = Service::start(&[]).await;
    let request = service.request("zoe@example.org");
    let trace_id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let mut message = request.message();
    message.trace_context = TraceContext(Some(format!("00-{trace_id}-00f067aa0ba902b7-01")));
    service.publish(message).await;
    let delivery = service.reaches(&request, proto::DeliveryState::Sent).await;
    eventually("both states are published", async || {
        service.published(&request) == [DeliveryState::Queued, DeliveryState::Sent]
    })
    .await;

    let is_ours = |span: &SpanData| span.span_context.trace_id().to_string() == trace_id;
    let mut spans = Vec::new();
    eventually("the spans have ended", async || {
        spans = OBSERVED.spans.get_finished_spans().unwrap();
        spans.retain(is_ours);
        spans.iter().any(|span| span.name == "deliver")
    })
    .await;
    let deliver = spans.iter().find(|span| span.name == "deliver").unwrap();
    let attribute = |name: &str| {
        let found = deliver
            .attributes
            .iter()
            .find(|attribute| attribute.key.as_str() == name);
        found.map(|attribute| attribute.value.clone())
    };
    assert_eq!(
        attribute("delivery.id"),
        Some(Value::from(delivery.delivery_id))
    );
    assert_eq!(attribute("smtp.status"), Some(Value::from("250 2.0.0")));
    assert_eq!(attribute("delivery.state"), Some(Value::from("SENT")));

    let changes = service.changes.lock().unwrap().clone();
    assert!(!changes.is_empty());
    for (_, trace_context) in changes {
        assert!(trace_context.0.unwrap().contains(trace_id));
    }
    service.stop().await;
}

#[tokio::test]
async fn nothing_personal_is_logged_even_for_debugging() {
    if !in_own_process("telemetry::nothing_personal_is_logged_even_for_debugging").await {
        return;
    }
    let service = Service::start(&["--recipient-gap=0s"]).await;
    let sent = service.request("observed.person@example.org");
    let refused = service.request("observed.person@example.org");
    service.publish(sent.message()).await;
    service.reaches(&sent, proto::DeliveryState::Sent).await;
    service.smtp.fail_once(
        At::Rcpt,
        Fault::Reply("550 5.1.1 <observed.person@example.org> unknown"),
    );
    service.publish(refused.message()).await;
    service
        .reaches(&refused, proto::DeliveryState::Failed)
        .await;
    let mut poison = service.request("observed.person@example.org\r\n");
    poison.requested.given_name = "Zoë".to_owned();
    service.publish(poison.message()).await;
    service.stop().await;

    let log = OBSERVED.log();
    assert!(
        log.contains("delivery attempted") && log.contains("event parked"),
        "the log is a log"
    );
    for personal in [
        "observed.person",
        "@example.org",
        "Zoë",
        "Łukasiewicz",
        "raw-token-of",
    ] {
        let line = log.lines().find(|line| line.contains(personal));
        assert_eq!(line, None, "{personal}");
    }
    for span in OBSERVED.spans.get_finished_spans().unwrap() {
        assert!(!format!("{span:?}").contains("@example.org"), "{span:?}");
    }
}
