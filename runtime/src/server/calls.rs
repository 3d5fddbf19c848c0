//! What all calls share: permits, limits, and the tasks that they run in.

use std::{sync::Arc, time::Duration};

use axum::{body::Body, response::Response};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, Status};
use tracing::Instrument as _;
use usher_proto::account::v1::ErrorReason;

use crate::{config::ServerArgs, error::RichError};

/// Length of the prefix of a gRPC message: a flag and the length.
pub(super) const PREFIX: usize = 5;

/// Calls of reflection at the same time.
const MAX_REFLECTIONS: usize = 16;

#[derive(Clone)]
pub(super) struct Calls {
    /// Calls under way, also those whose caller has gone.
    pub(super) tracker: TaskTracker,
    pub(super) permits: Arc<Semaphore>,
    /// Apart from the permits, so that streams, which last, do not keep other calls out.
    pub(super) streams: Arc<Semaphore>,
    pub(super) reflections: Arc<Semaphore>,
    /// Bytes of large requests and responses that the process holds at the same time.
    pub(super) buffer: Arc<Semaphore>,
    /// Longest body of a request that is one message.
    pub(super) max_body: usize,
    pub(super) timeout: Duration,
    pub(super) stream_idle_timeout: Duration,
    pub(super) stop: CancellationToken,
}

impl Calls {
    pub(super) fn new(args: &ServerArgs, stop: CancellationToken) -> Self {
        let max_body = args.max_message_bytes.saturating_add(PREFIX);
        let buffer = args
            .max_buffered_bytes
            .max(max_body)
            .min(Semaphore::MAX_PERMITS);
        Self {
            tracker: TaskTracker::new(),
            permits: Arc::new(Semaphore::new(args.max_concurrent_requests)),
            streams: Arc::new(Semaphore::new(args.max_streaming_requests)),
            reflections: Arc::new(Semaphore::new(MAX_REFLECTIONS)),
            buffer: Arc::new(Semaphore::new(buffer)),
            max_body,
            timeout: args.request_timeout,
            stream_idle_timeout: args.stream_idle_timeout,
            stop,
        }
    }

    /// Runs a call in a task of its own, which the caller's cancellation cannot drop: no call stops between
    /// two statements because its caller was impatient. `call` has a limit of its own.
    pub(super) async fn run(
        &self,
        call: impl Future<Output = Response> + Send + 'static,
    ) -> Response {
        match self.tracker.spawn(call.in_current_span()).await {
            Ok(response) => response,
            Err(join_error) => match join_error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Tasks are aborted only when the runtime shuts down.
                Err(_) => answer(stopping()),
            },
        }
    }
}

/// Takes a permit, or says what to answer.
pub(super) fn permit(permits: &Arc<Semaphore>, count: u32) -> Result<OwnedSemaphorePermit, Status> {
    Arc::clone(permits)
        .try_acquire_many_owned(count)
        .map_err(|_| overloaded())
}

pub(super) fn answer(status: Status) -> Response {
    status.into_http::<Body>()
}

pub(super) fn overloaded() -> Status {
    RichError::new(
        Code::Unavailable,
        ErrorReason::Overloaded,
        "the service has as much work as it can take; repeat the call a little later",
    )
    .retry_after(Duration::from_secs(1))
    .into()
}

pub(super) fn stopping() -> Status {
    RichError::new(
        Code::Unavailable,
        ErrorReason::Overloaded,
        "this instance of the service is shutting down; repeat the call, which reaches another one",
    )
    .retry_after(Duration::from_secs(1))
    .into()
}

pub(super) fn deadline_exceeded(message: &str) -> Status {
    RichError::new(
        Code::DeadlineExceeded,
        ErrorReason::DeadlineExceeded,
        message,
    )
    .into()
}

/// What ends a call whose request breaks off: its caller, who hears no more of it.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
pub(super) fn hung_up(error: axum::Error) -> Status {
    tracing::debug!(%error, "a request broke off");
    Status::cancelled("the request broke off")
}

/// When a call that arrives now has to be answered: after `timeout`, or shortly before its caller gives up
/// (header `grpc-timeout`: gRPC over HTTP/2), so that the reason still reaches the caller.
pub(super) fn deadline(headers: &http::HeaderMap, timeout: Duration) -> Instant {
    let of_caller = headers
        .get("grpc-timeout")
        .and_then(|value| parse_timeout(value.to_str().ok()?))
        .map(|timeout| timeout.saturating_sub((timeout / 10).min(Duration::from_millis(100))));
    Instant::now() + of_caller.map_or(timeout, |of_caller| of_caller.min(timeout))
}

/// Up to eight digits and a unit.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_hours(count),
        "M" => Duration::from_mins(count),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_of_callers_are_understood() {
        for (text, expected) in [
            ("100m", Some(Duration::from_millis(100))),
            ("99999999H", Some(Duration::from_hours(99_999_999))),
            ("1S", Some(Duration::from_secs(1))),
            ("0n", Some(Duration::ZERO)),
            ("999999999S", None),
            ("", None),
            ("S", None),
            ("1", None),
            ("-1S", None),
            ("1é", None),
        ] {
            assert_eq!(parse_timeout(text), expected, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_header_makes_a_call_longer_or_panics(text in "[ -~]{0,12}") {
            let mut headers = http::HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            let timeout = Duration::from_secs(20);
            let limit = Instant::now() + timeout;
            assert!(deadline(&headers, timeout) <= limit + Duration::from_secs(5));
        }
    }
}
