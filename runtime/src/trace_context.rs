//! Carries a trace across outbox, broker and mail queue.

use std::collections::HashMap;

use opentelemetry::{global, propagation::Extractor, trace::TraceContextExt as _};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// A W3C `traceparent`, or nothing when the call is not traced.
///
/// Source: W3C Trace Context, section 3.2.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TraceContext(pub Option<String>);

const TRACEPARENT: &str = "traceparent";

impl TraceContext {
    /// The context of the current span.
    #[must_use]
    pub fn current() -> Self {
        let mut carrier = HashMap::new();
        let context = Span::current().context();
        global::get_text_map_propagator(|propagator| {
            propagator.inject_context(&context, &mut carrier);
        });
        Self(carrier.remove(TRACEPARENT))
    }

    /// Makes `span` a child of this context, and records the id of the trace in its field `trace.id`.
    pub fn set_parent_of(&self, span: &Span) {
        let Some(traceparent) = &self.0 else { return };
        let carrier = HashMap::from([(TRACEPARENT.to_owned(), traceparent.clone())]);
        set_parent(span, &carrier);
    }
}

/// Adds a fact to the current span, for traces only: log lines show the fields that a span declares.
pub fn set_attribute(key: &'static str, value: impl Into<opentelemetry::Value>) {
    Span::current().set_attribute(key, value);
}

/// The id of the trace that the current span belongs to, in 32 hexadecimal digits. `None` outside of spans,
/// and where telemetry was not set up.
#[must_use]
pub fn current_trace_id() -> Option<String> {
    trace_id(&Span::current())
}

/// Makes `span` a child of the context that the headers of a request carry, or the first of a new trace, and
/// records the id of the trace in its field `trace.id`.
pub fn set_parent_from_headers(span: &Span, headers: &http::HeaderMap) {
    set_parent(span, &Headers(headers));
}

fn set_parent(span: &Span, carrier: &dyn Extractor) {
    let context = global::get_text_map_propagator(|propagator| propagator.extract(carrier));
    // Fails only without an OpenTelemetry layer, where there is no trace to join.
    let _ = span.set_parent(context);
    // So that log lines, which show the fields of their span, can be found from a trace, and a trace from them.
    if let Some(trace_id) = trace_id(span) {
        span.record("trace.id", trace_id);
    }
}

fn trace_id(span: &Span) -> Option<String> {
    let context = span.context();
    let span_context = context.span().span_context().clone();
    span_context
        .is_valid()
        .then(|| span_context.trace_id().to_string())
}

struct Headers<'a>(&'a http::HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}
