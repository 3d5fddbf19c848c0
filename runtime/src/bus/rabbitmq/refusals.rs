//! What the broker refuses to declare, for the log and for readiness.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Refusals that last, such as missing permissions, or an exchange of the right name and another type.
#[derive(Default)]
pub(super) struct Refusals(Mutex<BTreeMap<&'static str, String>>);

impl Refusals {
    /// Notes that `what` is refused. The log tells of changes only.
    pub(super) fn note(&self, what: &'static str, error: String) {
        let mut refusals = self.lock();
        if refusals.get(what) != Some(&error) {
            tracing::warn!(
                what,
                error,
                "the broker refuses Usher's exchanges or queues; trying again"
            );
            refusals.insert(what, error);
        }
    }

    /// Notes that `what` is not refused any more.
    pub(super) fn clear(&self, what: &'static str) {
        if self.lock().remove(what).is_some() {
            tracing::info!(what, "the broker takes Usher's exchanges and queues again");
        }
    }

    /// One of them, for people.
    pub(super) fn problem(&self) -> Option<String> {
        let refusals = self.lock();
        let (what, error) = refusals.first_key_value()?;
        Some(format!(
            "it refuses Usher's exchanges or queues ({what}): {error}"
        ))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
