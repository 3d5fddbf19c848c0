//! An OTLP collector that keeps what it gets.

use std::{fmt::Write as _, sync::Arc};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::ResourceSpans,
};
use tokio::{net::TcpListener, sync::watch};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

/// A span as it was exported; ids in hexadecimal.
#[derive(Debug, Clone, Default)]
pub struct Span {
    pub service: String,
    pub name: String,
    pub trace_id: String,
    pub id: String,
    pub parent_id: String,
    attributes: Vec<(String, String)>,
}

impl Span {
    /// The span of whoever calls the services, which is not exported here.
    pub fn of_caller(span_id: &str) -> Self {
        Self {
            id: span_id.to_owned(),
            ..Self::default()
        }
    }

    /// The attribute's value as text; empty without one.
    pub fn attribute(&self, key: &str) -> &str {
        self.attributes
            .iter()
            .find(|(name, _)| name == key)
            .map_or("", |(_, value)| value)
    }
}

/// A running collector.
pub struct Collector {
    pub url: String,
    spans: watch::Receiver<Vec<Span>>,
}

impl Collector {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let (sender, spans) = watch::channel(Vec::new());
        let service = TraceServiceServer::new(Keeper(Arc::new(sender)));
        tokio::spawn(
            Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        Self { url, spans }
    }

    /// All spans that came until now.
    pub fn spans(&self) -> Vec<Span> {
        self.spans.borrow().clone()
    }

    /// The spans of one trace that came until now.
    pub fn spans_of(&self, trace_id: &str) -> Vec<Span> {
        let mut spans = self.spans();
        spans.retain(|span| span.trace_id == trace_id);
        spans
    }

    /// Waits until the spans of a trace are what `is_complete` wants.
    pub async fn trace_until(
        &self,
        trace_id: &str,
        is_complete: impl Fn(&[Span]) -> bool,
    ) -> Vec<Span> {
        let mut changes = self.spans.clone();
        loop {
            let trace = self.spans_of(trace_id);
            if is_complete(&trace) {
                return trace;
            }
            changes.changed().await.expect("the collector runs");
        }
    }
}

struct Keeper(Arc<watch::Sender<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Keeper {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let exported = request.into_inner().resource_spans;
        self.0
            .send_modify(|spans| spans.extend(exported.into_iter().flat_map(spans_of)));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn spans_of(exported: ResourceSpans) -> Vec<Span> {
    let resource = texts(exported.resource.unwrap_or_default().attributes);
    let service = resource
        .into_iter()
        .find_map(|(name, value)| (name == "service.name").then_some(value))
        .unwrap_or_default();
    exported
        .scope_spans
        .into_iter()
        .flat_map(|scope| scope.spans)
        .map(|span| Span {
            service: service.clone(),
            name: span.name,
            trace_id: hex(&span.trace_id),
            id: hex(&span.span_id),
            parent_id: hex(&span.parent_span_id),
            attributes: texts(span.attributes),
        })
        .collect()
}

fn texts(attributes: Vec<KeyValue>) -> Vec<(String, String)> {
    attributes
        .into_iter()
        .map(|attribute| {
            let value = attribute.value.and_then(|value| value.value);
            let text = match value {
                Some(Value::StringValue(text)) => text,
                Some(Value::IntValue(number)) => number.to_string(),
                other => format!("{other:?}"),
            };
            (attribute.key, text)
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
