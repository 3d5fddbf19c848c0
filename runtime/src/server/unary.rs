//! Calls whose request is one message: most of them.

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use futures::StreamExt as _;
use http::HeaderMap;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout_at},
};
use tonic::{Code, Status};
use usher_proto::{account::v1::ErrorReason, rpc::Rpc};

use super::{
    auxiliary,
    calls::{Calls, PREFIX, answer, deadline, deadline_exceeded, hung_up, permit},
    response, streaming,
};
use crate::error::RichError;

/// What of each request, and the largest response, that may be held beyond the budget: small calls are not
/// refused because large ones use the budget up.
pub(super) const SMALL: usize = 16 * 1024;

/// Carries a call out: the innermost layer.
///
/// The whole request is read before the call takes a permit, so that requests which never end keep nobody
/// out. From then on it runs in a task of its own, to its end or its deadline, whatever its caller does.
pub(super) async fn carry_out(
    State(calls): State<Calls>,
    request: Request,
    next: Next,
) -> Response {
    match Rpc::find(request.uri().path()) {
        None => auxiliary::carry_out(&calls, request, next).await,
        Some(rpc) if rpc.is_client_streaming => {
            streaming::carry_out(&calls, &calls.streams, request, next).await
        }
        Some(rpc) if rpc.is_server_streaming => server_streaming(&calls, request, next)
            .await
            .unwrap_or_else(answer),
        Some(_) => unary(&calls, request, next).await.unwrap_or_else(answer),
    }
}

/// Answers one message with a stream.
async fn server_streaming(calls: &Calls, request: Request, next: Next) -> Result<Response, Status> {
    let deadline = deadline(request.headers(), calls.timeout);
    let (request, budget) = read(calls, request, calls.max_body, deadline).await?;
    let response = streaming::carry_out(calls, &calls.streams, request, next).await;
    drop(budget);
    Ok(response)
}

async fn unary(calls: &Calls, request: Request, next: Next) -> Result<Response, Status> {
    let deadline = deadline(request.headers(), calls.timeout);
    let (request, budget) = read(calls, request, calls.max_body, deadline).await?;
    let permit = permit(&calls.permits, 1)?;
    let of_response = calls.clone();
    let call = async move {
        let response = timeout_at(deadline, next.run(request)).await;
        drop((permit, budget));
        let response = response.unwrap_or_else(|_| {
            answer(deadline_exceeded(
                "the call took too long and may have been carried out all the same; repeat it with the same \
                 request_id to learn the answer",
            ))
        });
        response::limit(&of_response, response).await
    };
    Ok(calls.run(call).await)
}

/// A request of one message, at most `max_body` bytes with its prefix, that has arrived as a whole.
pub(super) async fn read(
    calls: &Calls,
    request: Request,
    max_body: usize,
    deadline: Instant,
) -> Result<(Request, Option<OwnedSemaphorePermit>), Status> {
    let (parts, body) = request.into_parts();
    let received = timeout_at(deadline, receive(calls, body, max_body)).await;
    let (message, budget) = received
        .map_err(|_| deadline_exceeded("the request did not arrive in time; repeat the call"))??;
    check_frame(&message, &parts.headers)?;
    Ok((Request::from_parts(parts, Body::from(message)), budget))
}

/// Reads a request to its end. What is larger than [`SMALL`] counts towards the process's budget for as long
/// as the permit is held.
async fn receive(
    calls: &Calls,
    body: Body,
    max_body: usize,
) -> Result<(Vec<u8>, Option<OwnedSemaphorePermit>), Status> {
    let mut chunks = body.into_data_stream();
    let mut message = Vec::new();
    let mut budget: Option<OwnedSemaphorePermit> = None;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(hung_up)?;
        let length = message.len() + chunk.len();
        if length > max_body {
            return Err(too_large(max_body - PREFIX));
        }
        let counted = length.saturating_sub(SMALL.max(message.len()));
        if counted > 0 {
            let more = permit(&calls.buffer, u32::try_from(counted).unwrap_or(u32::MAX))?;
            match &mut budget {
                Some(budget) => budget.merge(more),
                None => budget = Some(more),
            }
        }
        message.extend_from_slice(&chunk);
    }
    Ok((message, budget))
}

fn too_large(limit: usize) -> Status {
    RichError::new(
        Code::OutOfRange,
        ErrorReason::MessageTooLarge,
        format!("the request is larger than {limit} bytes; split it"),
    )
    .metadata("limit", limit)
    .into()
}

/// The request must be exactly one gRPC message; the library answers some that are not with INTERNAL.
fn check_frame(body: &[u8], headers: &HeaderMap) -> Result<(), Status> {
    let malformed = |message: &str| {
        Err(RichError::new(Code::InvalidArgument, ErrorReason::FieldInvalid, message).into())
    };
    let Some((&[flag, a, b, c, d], message)) = body.split_first_chunk::<PREFIX>() else {
        return malformed("the request holds no message; send one, be it empty");
    };
    if usize::try_from(u32::from_be_bytes([a, b, c, d])) != Ok(message.len()) {
        return malformed("the request is not one whole gRPC message");
    }
    match flag {
        0 => Ok(()),
        1 if headers.contains_key("grpc-encoding") => Ok(()),
        1 => malformed("the request is compressed, and has no header grpc-encoding"),
        _ => malformed("the request does not begin as a gRPC message does"),
    }
}
