//! The HTTP server for operators: `/metrics`, `/livez`, `/readyz`.

use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::health::Readiness;

#[derive(Clone)]
struct Admin {
    registry: prometheus::Registry,
    readiness: watch::Receiver<Readiness>,
}

/// Serves until `stop`.
///
/// # Errors
/// If the listener breaks.
pub async fn serve(
    listener: TcpListener,
    registry: prometheus::Registry,
    readiness: watch::Receiver<Readiness>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(Admin {
            registry,
            readiness,
        });
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

async fn readyz(State(admin): State<Admin>) -> (StatusCode, Json<serde_json::Value>) {
    let readiness = admin.readiness.borrow().clone();
    let status = if readiness.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = serde_json::json!({
        "ready": readiness.is_ready(),
        "database": readiness.database.is_ok(),
        "broker": readiness.broker.is_ok(),
        "workers_down": readiness.workers_down,
        "stopping": readiness.stopping,
        "problems": readiness.problems(),
    });
    (status, Json(body))
}

async fn metrics(State(admin): State<Admin>) -> Result<String, StatusCode> {
    prometheus::TextEncoder::new()
        .encode_to_string(&admin.registry.gather())
        .map_err(|error| {
            tracing::error!(%error, "metrics cannot be encoded");
            StatusCode::INTERNAL_SERVER_ERROR
        })
}
