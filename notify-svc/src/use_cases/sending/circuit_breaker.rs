//! A circuit breaker: when the relay cannot be used, all emails wait for a while, instead of trying it with
//! each of them.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use usher_runtime::backoff::Backoff;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);

/// Closed while the relay works, open while emails wait. Clones share it.
#[derive(Clone)]
pub(super) struct CircuitBreaker {
    /// What the log calls the relay.
    relay: Arc<str>,
    state: Arc<Mutex<State>>,
}

struct State {
    backoff: Backoff,
    /// Set while the relay fails: when to try again.
    retry_at: Option<Instant>,
}

impl CircuitBreaker {
    pub(super) fn new(relay: &str) -> Self {
        Self {
            relay: relay.into(),
            state: Arc::new(Mutex::new(State {
                backoff: Backoff::new(FIRST, LONGEST),
                retry_at: None,
            })),
        }
    }

    /// The relay could not be used. Returns how long all emails wait.
    pub(super) fn failed(&self, reason: &str) -> Duration {
        let mut state = self.lock();
        let now = Instant::now();
        if let Some(retry_at) = state.retry_at
            && retry_at > now
        {
            // Others found out at the same moment; it is one outage.
            return retry_at - now;
        }
        if state.retry_at.is_none() {
            tracing::warn!(
                relay = &*self.relay,
                reason,
                "the relay cannot be used; emails wait"
            );
        }
        let delay = state.backoff.next_delay();
        state.retry_at = Some(now + delay);
        delay
    }

    /// The relay took an email or gave a reason why not.
    pub(super) fn works(&self) {
        let mut state = self.lock();
        if state.retry_at.take().is_some() {
            state.backoff.reset();
            tracing::info!(relay = &*self.relay, "the relay can be used again");
        }
    }

    /// How long emails still wait.
    pub(super) fn open_for(&self) -> Option<Duration> {
        self.lock().retry_at?.checked_duration_since(Instant::now())
    }

    /// Whether the relay failed and has not worked since.
    pub(super) fn is_failing(&self) -> bool {
        self.lock().retry_at.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
