//! One span, one log line and one measurement for each call.

use std::{sync::LazyLock, time::Instant};

use axum::{body::Body, extract::Request, middleware::Next, response::Response};
use http_body_util::BodyExt as _;
use opentelemetry::{KeyValue, global, metrics::Histogram};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use tracing::{Instrument as _, Span, field::Empty};
use usher_proto::{account::v1::ErrorReason, rpc::Rpc};

use crate::{error::reason_name, trace_context::set_parent_from_headers};

/// `rpc.server.duration` in seconds, by method and code (OpenTelemetry semantic conventions for RPC), and by reason of
/// the refusal.
static DURATION: LazyLock<Histogram<f64>> = LazyLock::new(|| {
    global::meter("usher")
        .f64_histogram("rpc.server.duration")
        .with_unit("s")
        .with_description(
            "Time from the arrival of a call to its answer, or to the end of its stream",
        )
        .with_boundaries(vec![
            0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0,
        ])
        .build()
});

pub(super) async fn observe(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    // Asked every second by probes, and with reflection by people: no news.
    if path.starts_with("/grpc.") {
        return next.run(request).await;
    }
    // Anybody can invent paths, also without a token: they become neither label values nor lines of the log.
    let rpc = Rpc::find(path);
    let path = rpc.map_or("unknown", |rpc| rpc.path.trim_start_matches('/'));
    let (service, method) = path.split_once('/').unwrap_or((path, ""));
    let span = tracing::info_span!(
        "rpc",
        otel.name = path,
        otel.kind = "server",
        rpc.system = "grpc",
        rpc.service = service,
        rpc.method = method,
        rpc.grpc.status_code = Empty,
        otel.status_code = Empty,
        organization.id = Empty,
        trace.id = Empty,
    );
    set_parent_from_headers(&span, request.headers());

    let is_streaming = rpc.is_some_and(Rpc::is_streaming);
    let mut measurement = Measurement {
        span,
        path,
        start: Instant::now(),
        // What is dropped before its end was cancelled by its caller.
        code: Code::Cancelled,
        reason: None,
    };
    let response = next.run(request).instrument(measurement.span.clone()).await;
    let status = Status::from_header_map(response.headers());
    if status.is_none() && is_streaming {
        return response.map(|body| until_the_end(body, measurement));
    }
    measurement.end(&status.unwrap_or_else(|| Status::ok("")));
    response
}

/// Measures until the trailers, or until the body is dropped.
fn until_the_end(body: Body, mut measurement: Measurement) -> Body {
    Body::new(body.map_frame(move |frame| {
        // The whole of it moves in here, and is dropped with the body.
        let measurement = &mut measurement;
        if let Some(trailers) = frame.trailers_ref() {
            let status = Status::from_header_map(trailers);
            measurement.end(&status.unwrap_or_else(|| Status::unknown("")));
        }
        frame
    }))
}

/// One call; it is recorded when this is dropped.
struct Measurement {
    span: Span,
    path: &'static str,
    start: Instant,
    code: Code,
    /// Why the call was refused, of the contract's reasons.
    reason: Option<&'static str>,
}

impl Measurement {
    fn end(&mut self, status: &Status) {
        self.code = status.code();
        self.reason = reason(status);
    }
}

/// The reason in the `ErrorInfo` of a status, if it is one of the contract: there are few of them.
fn reason(status: &Status) -> Option<&'static str> {
    let info = status.get_details_error_info()?;
    let reason = ErrorReason::from_str_name(&format!("ERROR_REASON_{}", info.reason))?;
    Some(reason_name(reason))
}

impl Drop for Measurement {
    fn drop(&mut self) {
        let (code, reason, elapsed) = (self.code, self.reason, self.start.elapsed());
        self.span.record("rpc.grpc.status_code", code as i32);
        let is_fault = matches!(
            code,
            Code::Internal | Code::Unknown | Code::DataLoss | Code::Unavailable
        );
        if is_fault {
            self.span.record("otel.status_code", "ERROR");
        }
        let mut labels = vec![
            KeyValue::new("rpc.method", self.path),
            KeyValue::new("rpc.grpc.status_code", i64::from(code as i32)),
        ];
        labels.extend(reason.map(|reason| KeyValue::new("error.reason", reason)));
        DURATION.record(elapsed.as_secs_f64(), &labels);
        let duration_ms = elapsed.as_secs_f64() * 1e3;
        self.span.in_scope(|| {
            tracing::info!(code = ?code, error.reason = reason, duration_ms, "call finished");
        });
    }
}
