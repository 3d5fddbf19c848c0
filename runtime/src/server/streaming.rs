//! Calls whose request or response is a stream. What holds for other calls holds for them until the end of
//! the response: permit, span, measurement, and an answer with a reason after a panic.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    BoxError, Error,
    body::{Body, Bytes},
    extract::Request,
    middleware::Next,
    response::Response,
};
use futures::{FutureExt as _, stream};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::{Instrument as _, Span};

use super::{
    calls::{Calls, answer, deadline_exceeded, hung_up, permit, stopping},
    explain::{explain_trailers, panicked, trailers},
};
use crate::stream::Producers;

/// Carries a streaming call out. It ends when its handler ends it, when its caller goes, when nothing was
/// sent in either direction for the idle limit, and when the service stops. Until then it holds one of
/// `permits`.
pub(super) async fn carry_out(
    calls: &Calls,
    permits: &Arc<Semaphore>,
    request: Request,
    next: Next,
) -> Response {
    let permit = match permit(permits, 1) {
        Ok(permit) => Arc::new(permit),
        Err(status) => return answer(status),
    };
    let activity = Activity::new(calls.stream_idle_timeout);
    let method = request.uri().path().to_owned();
    let (mut parts, body) = request.into_parts();
    parts.extensions.insert(Producers::new(
        calls.tracker.clone(),
        Arc::clone(&permit),
        calls.timeout,
    ));
    let request = Request::from_parts(parts, requests(body, activity.clone()));
    let of_handler = activity.clone();
    let handler = async move {
        let response = of_handler.limit(next.run(request)).await;
        response.unwrap_or_else(|| answer(idle()))
    };
    let response = calls.run(handler).await;
    if Status::from_header_map(response.headers()).is_some() {
        // It ended before its first message.
        return response;
    }
    let stop = calls.stop.clone();
    response.map(|body| {
        let responses = Responses {
            body,
            activity,
            stop,
            method,
            _permit: permit,
        };
        responses.into_body()
    })
}

/// When something was last sent, in either direction.
#[derive(Debug, Clone)]
struct Activity {
    last: Arc<Mutex<Instant>>,
    idle_limit: Duration,
}

impl Activity {
    fn new(idle_limit: Duration) -> Self {
        Self {
            last: Arc::new(Mutex::new(Instant::now())),
            idle_limit,
        }
    }

    fn end(&self) -> Instant {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) + self.idle_limit
    }

    /// Waits for the next thing to be sent; `None` if the call is idle for too long.
    async fn limit<T>(&self, next: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(next);
        loop {
            let end = self.end();
            if let Ok(next) = timeout_at(end, &mut next).await {
                *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                return Some(next);
            }
            // Unless the other direction was busy in the meantime.
            if self.end() <= end {
                return None;
            }
        }
    }
}

fn idle() -> Status {
    deadline_exceeded(
        "nothing was sent for too long, and the call was ended; what was answered until then stands, repeat \
         the call for the rest",
    )
}

/// The caller's messages; an error in their place if the call is idle for too long.
fn requests(body: Body, activity: Activity) -> Body {
    let frames = stream::unfold(Some((body, activity)), |open| async {
        let (mut body, activity) = open?;
        match activity.limit(body.frame()).await {
            Some(frame) => {
                let frame = frame?.map_err(|error| BoxError::from(hung_up(error)));
                Some((frame, Some((body, activity))))
            }
            None => Some((Err(idle().into()), None)),
        }
    });
    Body::new(StreamBody::new(frames))
}

/// The messages of a handler, with everything that is held until their end.
struct Responses {
    body: Body,
    activity: Activity,
    stop: CancellationToken,
    method: String,
    _permit: Arc<OwnedSemaphorePermit>,
}

impl Responses {
    fn into_body(self) -> Body {
        let span = Span::current();
        let frames = stream::unfold(Some(self), move |open| {
            async {
                let mut open = open?;
                let (frame, goes_on) = open.next().await?;
                Some((frame, goes_on.then_some(open)))
            }
            .instrument(span.clone())
        });
        Body::new(StreamBody::new(frames))
    }

    /// The next part, and whether there may be more.
    async fn next(&mut self) -> Option<(Result<Frame<Bytes>, Error>, bool)> {
        let next = AssertUnwindSafe(self.activity.limit(self.body.frame())).catch_unwind();
        let status = tokio::select! {
            next = next => match next {
                Ok(Some(None)) => return None,
                Ok(Some(Some(Err(error)))) => return Some((Err(error), false)),
                Ok(Some(Some(Ok(frame)))) => {
                    return Some(match frame.into_trailers() {
                        Ok(trailers) => {
                            (Ok(Frame::trailers(explain_trailers(trailers, &self.method))), false)
                        }
                        Err(frame) => (Ok(frame), true),
                    });
                }
                Ok(None) => idle(),
                Err(panic) => panicked(panic),
            },
            () = self.stop.cancelled() => stopping(),
        };
        Some((Ok(Frame::trailers(trailers(&status))), false))
    }
}
