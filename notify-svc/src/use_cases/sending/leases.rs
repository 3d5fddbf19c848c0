//! Keeps the leases of the emails that this process has: so that they end soon when it dies, and not while a relay takes
//! its time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sqlx::PgPool;
use tokio::time::sleep;
use usher_runtime::database::{Scope, begin, within, without_data};
use uuid::Uuid;

use super::{DATABASE_DEADLINE, ready_queue::ReadyMail};
use crate::db::delivery::{self, Claim, Held};

/// The emails of this process. Clones share them.
#[derive(Clone)]
pub(super) struct Leases(Arc<Shared>);

struct Shared {
    pool: PgPool,
    lease: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    held: HashMap<Uuid, Held>,
    /// When the leases of all that was held then were last renewed.
    renewed: Option<Instant>,
}

impl Leases {
    pub(super) fn new(pool: PgPool, lease: Duration) -> Self {
        Self(Arc::new(Shared {
            pool,
            lease,
            state: Mutex::default(),
        }))
    }

    /// Keeps the leases of emails that were marked.
    pub(super) fn keep(&self, mails: &[ReadyMail]) {
        let mut state = self.lock();
        for ready in mails {
            if let Some(held) = Held::of(&ready.claim) {
                state.held.insert(ready.claim.delivery_id, held);
            }
        }
    }

    /// Lets emails go whose outcomes are recorded.
    pub(super) fn release<'a>(&self, claims: impl Iterator<Item = &'a Claim>) {
        let mut state = self.lock();
        for claim in claims {
            // It may have been taken again meanwhile.
            if state.held.get(&claim.delivery_id).copied() == Held::of(claim) {
                state.held.remove(&claim.delivery_id);
            }
        }
    }

    /// Whether an email can be begun: nobody else has it, and nobody can have it soon. The clock goes on while this process
    /// is stopped.
    pub(super) fn is_safe(&self, ready: &ReadyMail) -> bool {
        let state = self.lock();
        let renewed = state
            .renewed
            .map_or(ready.marked, |at| at.max(ready.marked));
        // Renewed each third: so it was not, twice.
        let is_long = renewed.elapsed() < self.0.lease * 2 / 3;
        is_long && state.held.contains_key(&ready.claim.delivery_id)
    }

    /// Renews the leases until it is dropped.
    pub(super) async fn renew(self) {
        loop {
            sleep(self.0.lease / 3).await;
            let started = Instant::now();
            let held: Vec<_> = self.lock().held.values().copied().collect();
            match within(DATABASE_DEADLINE, self.renew_once(&held)).await {
                Ok(renewed) => {
                    let mut state = self.lock();
                    state.renewed = Some(started);
                    for lost in held
                        .iter()
                        .filter(|held| !renewed.contains(&held.delivery_id))
                    {
                        if state.held.get(&lost.delivery_id) == Some(lost) {
                            state.held.remove(&lost.delivery_id);
                        }
                    }
                }
                Err(error) => {
                    let error = without_data(&error);
                    tracing::warn!(error, "leases cannot be renewed; trying again");
                }
            }
        }
    }

    async fn renew_once(&self, held: &[Held]) -> Result<Vec<Uuid>, sqlx::Error> {
        if held.is_empty() {
            return Ok(Vec::new());
        }
        let mut tx = begin(&self.0.pool, Scope::Platform).await?;
        let renewed = delivery::renew(&mut tx, held, self.0.lease).await?;
        tx.commit().await?;
        Ok(renewed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
