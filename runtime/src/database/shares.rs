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

/// Most calls of one organization that wait for its connections: a call that waits holds its place among all calls
/// that a replica carries out, and the calls of others need places too.
const MAX_WAITING: usize = 128;

/// Lets the calls of one organization use at most three quarters of a pool's connections: when they wait for each other's
/// locks, or for statements that take long, the calls of others still find connections. Clones share the counts.
#[derive(Debug, Clone)]
pub(crate) struct Shares {
    /// Connections of one organization.
    share: usize,
    /// Only organizations that use a connection or wait.
    organizations: Arc<Mutex<HashMap<Uuid, Weak<Share>>>>,
}

/// What is left of one organization's share.
#[derive(Debug)]
struct Share {
    connections: Arc<Semaphore>,
    /// Calls that may still wait.
    waiting: Semaphore,
}

/// One of an organization's connections, until it is dropped.
#[derive(Debug)]
pub struct Place {
    _connection: OwnedSemaphorePermit,
    _share: Arc<Share>,
}

impl Shares {
    /// Of the connections of `pool`.
    pub(crate) fn of(pool: &PgPool) -> Self {
        let connections = u64::from(pool.options().get_max_connections());
        let share = (connections * 3 / 4).max(1);
        Self {
            share: usize::try_from(share).unwrap_or(usize::MAX),
            organizations: Arc::default(),
        }
    }

    /// Waits for one of the organization's connections, first come, first served; `None` if none is free for as long as
    /// any call waits for a connection, or too many calls of the organization wait already.
    pub(crate) async fn enter(&self, organization_id: Uuid) -> Option<Place> {
        let share = self.of_organization(organization_id);
        let connections = || Arc::clone(&share.connections);
        let connection = if let Ok(connection) = connections().try_acquire_owned() {
            connection
        } else {
            let _waiting = share.waiting.try_acquire().ok()?;
            let connection = timeout(ACQUIRE_LIMIT, connections().acquire_owned()).await;
            connection.ok()?.ok()?
        };
        Some(Place {
            _connection: connection,
            _share: share,
        })
    }

    fn of_organization(&self, organization_id: Uuid) -> Arc<Share> {
        let mut organizations = self
            .organizations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Places and waiters hold their share, so that a new one cannot come beside it.
        organizations.retain(|_, known| known.strong_count() > 0);
        if let Some(known) = organizations.get(&organization_id).and_then(Weak::upgrade) {
            return known;
        }
        let share = Arc::new(Share {
            connections: Arc::new(Semaphore::new(self.share)),
            waiting: Semaphore::new(MAX_WAITING),
        });
        organizations.insert(organization_id, Arc::downgrade(&share));
        share
    }
}
