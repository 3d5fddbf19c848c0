//! Calls of what is not in the contract: health, reflection, and methods that do not exist.
//!
//! They are answered when everything else is too much, without a permit of the contract's calls. Anybody may
//! ask for health, so their bounds are tighter.

use std::time::Duration;

use axum::{body::Body, extract::Request, middleware::Next, response::Response};
use tokio::time::timeout_at;
use tonic::Status;

use super::{
    calls::{Calls, PREFIX, answer, deadline, deadline_exceeded},
    connections::ConnectionInfo,
    streaming, unary,
};
use crate::error::RichError;

/// Longest request for health, in bytes: it holds the name of a service.
pub(crate) const MAX_HEALTH_BYTES: usize = 1024;

/// Longest request of reflection, in bytes: it holds the name of a file or a symbol.
pub(super) const MAX_REFLECTION_BYTES: usize = 4 * 1024;

/// Longest that a question for health may take, the arrival of the request included.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(3);

/// What the paths of health begin with.
pub(super) const HEALTH: &str = "/grpc.health.v1.Health/";

/// Answers a call of what is not in the contract.
pub(super) async fn carry_out(calls: &Calls, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if let Some(method) = path.strip_prefix(HEALTH) {
        let is_watch = method == "Watch";
        let answered = health(calls, request, next, is_watch).await;
        answered.unwrap_or_else(answer)
    } else if path.starts_with("/grpc.reflection.") {
        streaming::carry_out(calls, &calls.reflections, request, next).await
    } else {
        // The answer is known without the body, which is not received.
        next.run(request.map(|_| Body::empty())).await
    }
}

async fn health(
    calls: &Calls,
    request: Request,
    next: Next,
    is_watch: bool,
) -> Result<Response, Status> {
    let deadline = deadline(request.headers(), HEALTH_TIMEOUT);
    let (request, _) = unary::read(calls, request, MAX_HEALTH_BYTES + PREFIX, deadline).await?;
    if is_watch {
        // Each connection has permits of its own, so that nobody takes them from others: who watches health
        // has not even said who it is.
        let connection = request.extensions().get::<ConnectionInfo>();
        let watches = connection
            .ok_or_else(RichError::fault)?
            .health_watches
            .clone();
        return Ok(streaming::carry_out(calls, &watches, request, next).await);
    }
    timeout_at(deadline, next.run(request))
        .await
        .map_err(|_| deadline_exceeded("the call took longer than its deadline; repeat it"))
}
