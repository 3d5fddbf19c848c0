//! The steps of an event in its trace (OpenTelemetry semantic conventions for messaging).

use tracing::{Span, field::Empty};
use usher_proto::topology::{self, Queue};

use super::Message;
use crate::trace_context::TraceContext;

impl Message {
    /// A span for the publishing of the event, in the trace that it was stored with. From here on the event
    /// carries the span, so that its consumer continues from it. None for an event without a trace.
    pub(crate) fn producer_span(&mut self) -> Option<Span> {
        self.trace_context.0.as_ref()?;
        let span = tracing::info_span!(
            parent: None,
            "publish",
            otel.kind = "producer",
            messaging.system = "rabbitmq",
            messaging.operation.type = "send",
            messaging.destination.name = topology::exchange(&self.event_type),
            messaging.message.id = %self.event_id,
            event.type = self.event_type,
            trace.id = Empty,
        );
        self.continue_from(&span);
        Some(span)
    }

    /// A span for the handling of the event that came out of `queue`, in the trace that it came with. From
    /// here on the event carries the span. None for an event without a trace.
    pub fn consumer_span(&mut self, queue: Queue) -> Option<Span> {
        self.trace_context.0.as_ref()?;
        let span = tracing::info_span!(
            parent: None,
            "consume",
            otel.kind = "consumer",
            messaging.system = "rabbitmq",
            messaging.operation.type = "process",
            messaging.destination.name = queue.name,
            messaging.message.id = %self.event_id,
            event.type = self.event_type,
            trace.id = Empty,
        );
        self.continue_from(&span);
        Some(span)
    }

    fn continue_from(&mut self, span: &Span) {
        self.trace_context.set_parent_of(span);
        let context = span.in_scope(TraceContext::current);
        if context.0.is_some() {
            self.trace_context = context;
        }
    }
}
