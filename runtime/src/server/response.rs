//! Sends responses of one message to callers who may not read them.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes},
    response::Response,
};
use http::HeaderMap;
use http_body::Frame;
use http_body_util::BodyExt as _;
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::sleep,
};
use tonic::Status;

use super::{
    calls::{Calls, answer, permit},
    unary::SMALL,
};
use crate::error::RichError;

/// Bytes that are handed to the connection at once, which keeps them until the caller has read them.
const PIECE: usize = 16 * 1024;

/// Puts limits on a response until its caller has read it: what is larger than [`SMALL`] counts towards the
/// process's budget, and is given up after the time that a call may take.
///
/// The server asks for the next part only when the caller reads: without these limits, a caller who does not
/// would hold any number of large responses for as long as the connection lasts.
pub(super) async fn limit(calls: &Calls, response: Response) -> Response {
    let (parts, body) = response.into_parts();
    // Encodes the message; a panic in there is one of the call.
    let Ok(body) = body.collect().await else {
        return answer(RichError::fault().into());
    };
    let trailers = body.trailers().cloned();
    let message = body.to_bytes();
    if message.is_empty() && trailers.is_none() {
        // An error stands in the headers alone, and they must end the stream (gRPC over HTTP/2, Trailers-Only).
        return Response::from_parts(parts, Body::empty());
    }
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let budget = if message.len() > SMALL {
        match permit(&calls.buffer, length) {
            Ok(budget) => Some(budget),
            Err(status) => return answer(status),
        }
    } else {
        None
    };
    let held = Arc::new(Mutex::new(Some(Held {
        message,
        trailers,
        _budget: budget,
    })));
    let (reading, read) = oneshot::channel::<()>();
    if length as usize > SMALL {
        let (unread, timeout) = (Arc::clone(&held), calls.timeout);
        tokio::spawn(async move {
            tokio::select! {
                () = sleep(timeout) => {}
                _ = read => {}
            }
            let rest = lock(&unread).take();
            drop(rest);
        });
    }
    let body = Pieces {
        held,
        is_sent: false,
        _reading: reading,
    };
    Response::from_parts(parts, Body::new(body))
}

/// What the caller has not read yet.
struct Held {
    message: Bytes,
    trailers: Option<HeaderMap>,
    _budget: Option<OwnedSemaphorePermit>,
}

fn lock(held: &Mutex<Option<Held>>) -> MutexGuard<'_, Option<Held>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The body of a response, piece by piece.
struct Pieces {
    held: Arc<Mutex<Option<Held>>>,
    is_sent: bool,
    /// Dropped with the body.
    _reading: oneshot::Sender<()>,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.is_sent {
            return Poll::Ready(None);
        }
        let mut held = lock(&self.held);
        let Some(rest) = held.as_mut() else {
            drop(held);
            self.is_sent = true;
            // The caller has not read it in time.
            return Poll::Ready(Some(Err(Status::cancelled("the response was not read"))));
        };
        if !rest.message.is_empty() {
            let length = rest.message.len().min(PIECE);
            // A copy, so that a piece that is not read does not hold the whole.
            let piece = Bytes::copy_from_slice(&rest.message.split_to(length));
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let trailers = rest.trailers.take();
        drop(held.take());
        drop(held);
        self.is_sent = true;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }
}
