//! Reads what is left of a request after its answer.
//!
//! Many calls are answered before their request has arrived: callers who may not call, more calls than there
//! are permits, paths that do not exist. If the rest of the request were given up, HTTP/2 would reset the
//! stream, and after [`MAX_RESETS`](super::MAX_RESETS) of those close the connection, with all other calls on
//! it. So the rest is received and thrown away: it holds no memory, and has a limit in bytes and in time.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::{runtime::Handle, time::timeout};

/// Longest that the rest of a request may take to arrive; then its stream is reset.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Lets the request be drained, at most `max_bytes`, whoever drops its body.
pub(super) async fn drain_when_dropped(
    State(max_bytes): State<usize>,
    request: Request,
) -> Request {
    request.map(|body| Body::new(Drained { body, max_bytes }))
}

/// The body of a request.
struct Drained {
    body: Body,
    max_bytes: usize,
}

impl http_body::Body for Drained {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Drained {
    fn drop(&mut self) {
        if http_body::Body::is_end_stream(&self.body) {
            return;
        }
        let rest = drain(std::mem::take(&mut self.body), self.max_bytes);
        // There is none while the process ends.
        if let Ok(runtime) = Handle::try_current() {
            // A connection has no more of these than it may have streams: each lasts as long as its stream.
            runtime.spawn(timeout(DRAIN_TIMEOUT, rest));
        }
    }
}

async fn drain(mut body: Body, max_bytes: usize) {
    let mut left = max_bytes;
    // Also ends when the caller has gone.
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(length) {
            Some(less) => left = less,
            None => return,
        }
    }
}
