//! Calls whose request or response is a stream. What holds for other calls holds for them until the end of
//! the response: permit, span, measurement, and an answer with a reason after a panic.

use std::{
    future::poll_fn,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
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
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, StreamBody};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep_until},
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
    response.map(|body| {
        let (open, ended) = Open::new(body, permit);
        tokio::spawn(
            open.clone()
                .end_when_due(activity.clone(), calls.stop.clone()),
        );
        let responses = Responses {
            open,
            ended,
            activity,
            method,
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

    /// Something was sent.
    fn now(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Waits until nothing was sent for the idle limit.
    async fn over(&self) {
        loop {
            let end = self.end();
            sleep_until(end).await;
            if self.end() <= end {
                return;
            }
        }
    }

    /// Waits for the next thing to be sent; `None` if the call is idle for too long.
    async fn limit<T>(&self, next: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            next = next => {
                self.now();
                Some(next)
            }
            () = self.over() => None,
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

/// A response under way, with everything that is held until its end.
///
/// Shared with the task that ends it: the server asks for the next part only when the caller reads, so that a
/// caller who stops reading would otherwise keep permit and producer for as long as the connection lasts.
#[derive(Clone)]
struct Open {
    held: Arc<Mutex<Option<Held>>>,
    /// Why the response was ended, once it was.
    ended: watch::Sender<Option<Status>>,
}

struct Held {
    body: Body,
    _permit: Arc<OwnedSemaphorePermit>,
}

impl Open {
    fn new(
        body: Body,
        permit: Arc<OwnedSemaphorePermit>,
    ) -> (Self, watch::Receiver<Option<Status>>) {
        let held = Held {
            body,
            _permit: permit,
        };
        let (ended, receiver) = watch::channel(None);
        let open = Self {
            held: Arc::new(Mutex::new(Some(held))),
            ended,
        };
        (open, receiver)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next part of the handler's response. Waits for ever once the response was ended.
    async fn frame(&self) -> Option<Result<Frame<Bytes>, Error>> {
        poll_fn(|context| match self.lock().as_mut() {
            Some(held) => Pin::new(&mut held.body).poll_frame(context),
            None => Poll::Pending,
        })
        .await
    }

    /// Ends the response when it was idle for too long or the service stops, whether its caller reads or not.
    async fn end_when_due(self, activity: Activity, stop: CancellationToken) {
        let status = tokio::select! {
            () = activity.over() => idle(),
            () = stop.cancelled() => stopping(),
            // `Responses` is gone: the response has ended.
            () = self.ended.closed() => return,
        };
        let held = self.lock().take();
        drop(held);
        self.ended.send_replace(Some(status));
    }
}

/// The messages of a handler.
struct Responses {
    open: Open,
    ended: watch::Receiver<Option<Status>>,
    activity: Activity,
    method: String,
}

impl Responses {
    fn into_body(self) -> Body {
        let span = Span::current();
        let frames = stream::unfold(Some(self), move |responses| {
            async {
                let mut responses = responses?;
                let (frame, goes_on) = responses.next().await?;
                Some((frame, goes_on.then_some(responses)))
            }
            .instrument(span.clone())
        });
        Body::new(StreamBody::new(frames))
    }

    /// The next part, and whether there may be more.
    async fn next(&mut self) -> Option<(Result<Frame<Bytes>, Error>, bool)> {
        let status = tokio::select! {
            frame = AssertUnwindSafe(self.open.frame()).catch_unwind() => {
                self.activity.now();
                match frame {
                    Ok(None) => return None,
                    Ok(Some(Err(error))) => return Some((Err(error), false)),
                    Ok(Some(Ok(frame))) => return Some(match frame.into_trailers() {
                        Ok(trailers) => {
                            (Ok(Frame::trailers(explain_trailers(trailers, &self.method))), false)
                        }
                        Err(frame) => (Ok(frame), true),
                    }),
                    Err(panic) => panicked(panic),
                }
            }
            ended = self.ended.wait_for(Option::is_some) => {
                // Some, and no error: the sender is in `self`.
                ended.ok().and_then(|status| status.clone()).unwrap_or_else(stopping)
            }
        };
        Some((Ok(Frame::trailers(trailers(&status))), false))
    }
}
