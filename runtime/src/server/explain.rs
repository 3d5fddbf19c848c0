//! Gives the errors that the gRPC library makes by itself the shape of our own.

use std::any::Any;

use axum::{body::Body, extract::Request, http, middleware::Next, response::Response};
use http::HeaderMap;
use tonic::{Code, Status};
use tower_http::catch_panic::ResponseForPanic;
use usher_proto::{account::v1::ErrorReason, rpc::Rpc};

use crate::error::RichError;

/// Adds reason and advice to errors that have no details yet.
pub(super) async fn explain_errors(request: Request, next: Next) -> Response {
    let method = request.uri().path().to_owned();
    let response = next.run(request).await;
    match Status::from_header_map(response.headers()) {
        Some(status) if lacks_reason(&status) => explained(&status, &method).into_http::<Body>(),
        _ => response,
    }
}

/// The same for the end of a stream.
pub(super) fn explain_trailers(sent: HeaderMap, method: &str) -> HeaderMap {
    match Status::from_header_map(&sent) {
        Some(status) if lacks_reason(&status) => trailers(&explained(&status, method)),
        _ => sent,
    }
}

/// What a stream ends with.
pub(super) fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        trailers.clear();
        // `Code::Internal`; a message that no header can hold has no other way out.
        trailers.insert(Status::GRPC_STATUS, http::HeaderValue::from_static("13"));
    }
    trailers
}

/// Who cancelled a call does not wait for a reason. What is not found without one is a symbol that reflection does
/// not know, and its clients understand the code.
fn lacks_reason(status: &Status) -> bool {
    let needs_none = matches!(status.code(), Code::Ok | Code::Cancelled | Code::NotFound);
    !needs_none && status.details().is_empty()
}

fn explained(status: &Status, method: &str) -> Status {
    let error = match status.code() {
        Code::Unimplemented if status.message().contains("compressed") => RichError::new(
            Code::Unimplemented,
            ErrorReason::NotImplemented,
            "compressed requests are not accepted; send them as they are",
        ),
        // A method of a service that is served in part.
        Code::Unimplemented => not_implemented(method, NOT_YET),
        // Says the size and the limit, and nothing else.
        Code::OutOfRange => RichError::new(
            Code::OutOfRange,
            ErrorReason::MessageTooLarge,
            format!("the request is too large: {}; split it", status.message()),
        ),
        Code::DeadlineExceeded => RichError::new(
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

/// Why a method of the contract is not served by the program that will.
const NOT_YET: &str = "is not served by this version; the README lists what is";

/// Answers a call of a service that `program` does not serve.
pub(super) fn not_served(program: &str, method: &str) -> Response {
    let error = match Rpc::find(method) {
        Some(rpc) if rpc.program() == program => not_implemented(method, NOT_YET),
        Some(rpc) => {
            let elsewhere = format!("is served by {}; this is {program}", rpc.program());
            not_implemented(method, &elsewhere)
        }
        None => not_implemented(
            method,
            "does not exist; reflection lists the services, and methods, that do",
        ),
    };
    Status::from(error).into_http()
}

fn not_implemented(method: &str, why: &str) -> RichError {
    RichError::new(
        Code::Unimplemented,
        ErrorReason::NotImplemented,
        format!("{method} {why}"),
    )
    .metadata("method", method)
}

/// Answers a call whose handler panicked.
#[derive(Clone, Copy)]
pub(super) struct PanicAnswer;

impl ResponseForPanic for PanicAnswer {
    type ResponseBody = Body;

    fn response_for_panic(&mut self, panic: Box<dyn Any + Send>) -> http::Response<Body> {
        panicked(panic).into_http::<Body>()
    }
}

/// What the caller learns of a panic. Its payload may hold what the caller sent; the location, which the panic
/// hook has logged, is enough.
pub(super) fn panicked(panic: Box<dyn Any + Send>) -> Status {
    drop(panic);
    tracing::error!("a handler panicked");
    RichError::fault().into()
}
