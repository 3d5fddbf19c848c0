//! Carries a trace across outbox, broker and mail queue.

use std::collections::HashMap;

use opentelemetry::{global, propagation::Extractor};
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

    /// Makes `span` a child of this context.
    pub fn set_parent_of(&self, span: &Span) {
        let Some(traceparent) = &self.0 else { return };
        let carrier = HashMap::from([(TRACEPARENT.to_owned(), traceparent.clone())]);
        set_parent(span, &carrier);
    }
}

/// Makes `span` a child of the context that the headers of a request carry.
pub fn set_parent_from_headers(span: &Span, headers: &http::HeaderMap) {
    set_parent(span, &Headers(headers));
}

fn set_parent(span: &Span, carrier: &dyn Extractor) {
    let context = global::get_text_map_propagator(|propagator| propagator.extract(carrier));
    // Fails only without an OpenTelemetry layer, where there is no trace to join.
    let _ = span.set_parent(context);
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
