//! One span, one log line and one measurement for each call.

use std::{sync::LazyLock, time::Instant};

use axum::{extract::Request, middleware::Next, response::Response};
use opentelemetry::{KeyValue, global, metrics::Histogram};
use tonic::{Code, Status};
use tracing::{Instrument as _, field::Empty};

use crate::trace_context::set_parent_from_headers;

/// `rpc.server.duration` in seconds, by method and code (OpenTelemetry semantic conventions for RPC).
static DURATION: LazyLock<Histogram<f64>> = LazyLock::new(|| {
    global::meter("usher")
        .f64_histogram("rpc.server.duration")
        .with_unit("s")
        .with_description("Time from the arrival of a call to its answer")
        .with_boundaries(vec![
            0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0,
        ])
        .build()
});

pub(super) async fn observe(request: Request, next: Next) -> Response {
    let path = request.uri().path().trim_start_matches('/').to_owned();
    // Asked every second by probes, and with reflection by people: no news.
    if path.starts_with("grpc.") {
        return next.run(request).await;
    }
    let (service, method) = path.split_once('/').unwrap_or((path.as_str(), ""));
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

    let start = Instant::now();
    let response = next.run(request).instrument(span.clone()).await;
    let elapsed = start.elapsed();

    let code = Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code());
    span.record("rpc.grpc.status_code", code as i32);
    let is_fault = matches!(
        code,
        Code::Internal | Code::Unknown | Code::DataLoss | Code::Unavailable
    );
    if is_fault {
        span.record("otel.status_code", "ERROR");
    }
    // Paths that are not ours must not become label values: anybody can invent them.
    let label = if code == Code::Unimplemented {
        "unimplemented".to_owned()
    } else {
        path
    };
    DURATION.record(
        elapsed.as_secs_f64(),
        &[
            KeyValue::new("rpc.method", label),
            KeyValue::new("rpc.grpc.status_code", i64::from(code as i32)),
        ],
    );
    span.in_scope(|| {
        tracing::info!(code = ?code, duration_ms = elapsed.as_secs_f64() * 1e3, "call finished");
    });
    response
}
