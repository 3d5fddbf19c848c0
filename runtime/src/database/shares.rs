//! The connections of calls, and how many of them one organization may use.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use sqlx::PgPool;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use uuid::Uuid;

use super::ACQUIRE_LIMIT;

/// Lets the calls of one organization use at most three quarters of a pool's connections: when they wait for each other's locks,
/// or for statements that take long, the calls of others still find connections. Clones share the counts.
#[derive(Debug, Clone)]
pub(crate) struct Shares {
    /// Connections of one organization.
    share: usize,
    /// Those of each organization that are free; only of organizations that use one or wait.
    free: Arc<Mutex<HashMap<Uuid, Weak<Semaphore>>>>,
}

impl Shares {
    /// Of the connections of `pool`.
    pub(crate) fn of(pool: &PgPool) -> Self {
        let connections = u64::from(pool.options().get_max_connections());
        let share = (connections * 3 / 4).max(1);
        Self {
            share: usize::try_from(share).unwrap_or(usize::MAX),
            free: Arc::default(),
        }
    }

    /// Waits for one of the organization's connections, first come, first served; `None` if none is free for as long as
    /// any call waits for a connection. It is free again when the permit is dropped.
    pub(crate) async fn enter(&self, organization_id: Uuid) -> Option<OwnedSemaphorePermit> {
        let free = self.free_of(organization_id);
        timeout(ACQUIRE_LIMIT, free.acquire_owned())
            .await
            .ok()?
            .ok()
    }

    fn free_of(&self, organization_id: Uuid) -> Arc<Semaphore> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        // Permits and waiters hold their semaphore, so that a new one cannot come beside it.
        free.retain(|_, known| known.strong_count() > 0);
        if let Some(known) = free.get(&organization_id).and_then(Weak::upgrade) {
            return known;
        }
        let all = Arc::new(Semaphore::new(self.share));
        free.insert(organization_id, Arc::downgrade(&all));
        all
    }
}
