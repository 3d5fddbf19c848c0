//! Keeps all emails back for a while when the relay cannot be used, instead of trying it with each of them.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use usher_runtime::backoff::Backoff;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);

/// Open while the relay works. Clones share it.
#[derive(Clone)]
pub(super) struct RelayGate(Arc<Mutex<State>>);

struct State {
    backoff: Backoff,
    /// Set while the relay fails: when to try again.
    open_at: Option<Instant>,
}

impl Default for RelayGate {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State {
            backoff: Backoff::new(FIRST, LONGEST),
            open_at: None,
        })))
    }
}

impl RelayGate {
    /// The relay could not be used. Returns how long all emails wait.
    pub(super) fn failed(&self, reason: &str) -> Duration {
        let mut state = self.lock();
        let now = Instant::now();
        if let Some(open_at) = state.open_at
            && open_at > now
        {
            // Others found out at the same moment; it is one outage.
            return open_at - now;
        }
        if state.open_at.is_none() {
            tracing::warn!(reason, "the relay cannot be used; emails wait");
        }
        let delay = state.backoff.next_delay();
        state.open_at = Some(now + delay);
        delay
    }

    /// The relay took an email or gave a reason why not.
    pub(super) fn works(&self) {
        let mut state = self.lock();
        if state.open_at.take().is_some() {
            state.backoff.reset();
            tracing::info!("the relay can be used again");
        }
    }

    /// How long emails still wait.
    pub(super) fn closed_for(&self) -> Option<Duration> {
        self.lock().open_at?.checked_duration_since(Instant::now())
    }

    /// Whether the relay failed and has not worked since.
    pub(super) fn is_failing(&self) -> bool {
        self.lock().open_at.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
