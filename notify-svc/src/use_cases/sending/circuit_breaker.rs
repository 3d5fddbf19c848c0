//! A circuit breaker: when the relay cannot be used, all emails wait for a while, instead of trying it with
//! each of them.
//!
//! A relay that may not be used says so of each email alone (`5.7.1 relay access denied`), as it does of an email that a
//! recipient's server does not want. So it counts as trouble of the relay when it says it of three recipients, one after
//! another; and an email is at fault when the relay has accepted another one since it refused this one before. So it is
//! with a relay that goes away before it has the whole of an email.

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use time::OffsetDateTime;
use usher_runtime::{backoff::Backoff, health::Problems};

use crate::{domain::Recipient, metrics::Metrics};

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);

/// Recipients whose emails are not taken before the relay counts as the one at fault.
const NOT_TAKEN: usize = 3;

/// Closed while the relay works, open while emails wait. Clones share it.
#[derive(Clone)]
pub(super) struct CircuitBreaker {
    /// What the log calls the relay.
    relay: Arc<str>,
    metrics: Metrics,
    problems: Problems,
    state: Arc<Mutex<State>>,
}

struct State {
    backoff: Backoff,
    /// Set while the relay fails: when to try again.
    retry_at: Option<Instant>,
    /// Recipients whose emails were not taken, for whatever reason, since one was accepted, as hashes.
    not_taken: BTreeSet<u64>,
    /// When the relay accepted an email last, by the database's clock.
    accepted: Option<OffsetDateTime>,
}

impl CircuitBreaker {
    pub(super) fn new(relay: &str, metrics: Metrics, problems: Problems) -> Self {
        metrics.circuit_breaker(false);
        // Of an earlier sender, which has ended unexpectedly.
        problems.set("relay", None);
        Self {
            relay: relay.into(),
            metrics,
            problems,
            state: Arc::new(Mutex::new(State {
                backoff: Backoff::new(FIRST, LONGEST),
                retry_at: None,
                not_taken: BTreeSet::new(),
                accepted: None,
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
        let relay = &self.relay;
        let problem = format!("the relay {relay} cannot be used, emails wait: {reason}");
        self.problems.set("relay", Some(problem));
        if state.retry_at.is_none() {
            self.metrics.circuit_breaker(true);
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
            self.metrics.circuit_breaker(false);
            self.problems.set("relay", None);
            tracing::info!(relay = &*self.relay, "the relay can be used again");
        }
    }

    /// The relay accepted an email that was claimed at `time`.
    pub(super) fn accepted(&self, time: OffsetDateTime) {
        self.works();
        let mut state = self.lock();
        state.not_taken.clear();
        state.accepted = state.accepted.max(Some(time));
    }

    /// The relay refused an email for a reason of policy, or went away. If it does so to several recipients, all emails
    /// wait, for `reason`.
    pub(super) fn did_not_take(&self, recipient: &Recipient, reason: &str) {
        let mut hasher = DefaultHasher::new();
        recipient.canonical().hash(&mut hasher);
        let mut state = self.lock();
        if state.not_taken.len() < NOT_TAKEN {
            state.not_taken.insert(hasher.finish());
        }
        let is_relay = state.not_taken.len() >= NOT_TAKEN;
        drop(state);
        if is_relay {
            self.failed(reason);
        }
    }

    /// Whether the relay accepted an email that was claimed after `time`.
    pub(super) fn has_accepted_since(&self, time: OffsetDateTime) -> bool {
        self.lock().accepted.is_some_and(|accepted| accepted > time)
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
