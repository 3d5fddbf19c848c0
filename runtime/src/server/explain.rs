//! Gives the errors that the gRPC library makes by itself the shape of our own.

use std::any::Any;

use axum::{body::Body, extract::Request, http, middleware::Next, response::Response};
use tonic::{Code, Status};
use tower_http::catch_panic::ResponseForPanic;
use usher_proto::account::v1::ErrorReason;

use crate::error::RichError;

/// Adds reason and advice to errors that have no details yet.
pub(super) async fn explain_errors(request: Request, next: Next) -> Response {
    let method = request.uri().path().to_owned();
    let response = next.run(request).await;
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() != Code::Ok && status.details().is_empty() => {
            explained(&status, &method).into_http::<Body>()
        }
        _ => response,
    }
}

fn explained(status: &Status, method: &str) -> Status {
    let error = match status.code() {
        Code::Unimplemented => RichError::new(
            Code::Unimplemented,
            ErrorReason::NotImplemented,
            format!("{method} is not served by this version; the README lists what is"),
        )
        .metadata("method", method),
        // Says the size and the limit, and nothing else.
        Code::OutOfRange => RichError::new(
            Code::OutOfRange,
            ErrorReason::MessageTooLarge,
            format!("the request is too large: {}; split it", status.message()),
        ),
        Code::Cancelled | Code::DeadlineExceeded => RichError::new(
            Code::DeadlineExceeded,
            ErrorReason::DeadlineExceeded,
            "the call took longer than its deadline",
        ),
        Code::InvalidArgument => RichError::new(
            Code::InvalidArgument,
            ErrorReason::FieldInvalid,
            status.message(),
        ),
        Code::Unavailable => RichError::new(
            Code::Unavailable,
            ErrorReason::DependencyUnavailable,
            status.message(),
        ),
        // Mostly a request that is no protobuf message of its type.
        Code::Internal if status.message().contains("decode Protobuf") => RichError::new(
            Code::InvalidArgument,
            ErrorReason::FieldInvalid,
            format!("the request is not a protobuf message of {method}"),
        ),
        _ => {
            tracing::error!(code = ?status.code(), error = status.message(), "the gRPC library failed");
            RichError::fault()
        }
    };
    error.into()
}

/// Answers a call whose handler panicked.
#[derive(Clone, Copy)]
pub(super) struct PanicAnswer;

impl ResponseForPanic for PanicAnswer {
    type ResponseBody = Body;

    fn response_for_panic(&mut self, panic: Box<dyn Any + Send>) -> http::Response<Body> {
        // The payload may hold what the caller sent; the location, which the panic hook prints, is enough.
        drop(panic);
        tracing::error!("a handler panicked");
        Status::from(RichError::fault()).into_http::<Body>()
    }
}
