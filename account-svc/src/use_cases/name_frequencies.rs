//! How often names occur in each organization's list, counted in the background: a rare name that agrees says
//! more than a common one. A create only says that there is something to count. Before names are counted, the keys that
//! an earlier release derived from them are renewed.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sqlx::PgPool;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use usher_runtime::{
    backoff::jittered,
    database::{Scope, begin, within, without_data},
    relay::Wake,
};
use uuid::Uuid;

use crate::db::{
    account,
    name_frequency::{self, Count},
};

/// From a change to the count: many changes make one count.
const DEBOUNCE: Duration = Duration::from_secs(1);

/// Before a count that failed, or that another replica makes, is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// How often the database is searched for lists that changed unnoticed: by a process that died before it
/// counted.
const SEARCH_INTERVAL: Duration = Duration::from_mins(10);

/// Longest time of one search.
const SEARCH_DEADLINE: Duration = Duration::from_secs(30);

/// Most organizations that one search finds.
const MAX_FOUND: i64 = 1_000;

/// After a count, a pause of this many times as long: with many lists that change, at most a fifth of the time is
/// spent on counting.
const PAUSE_FACTOR: u32 = 4;

/// Longest time of one count.
const DEADLINE: Duration = Duration::from_mins(11);

/// The organizations whose names changed in this process since they were counted. Clones are the same set.
#[derive(Debug, Clone, Default)]
pub struct ChangedNames {
    organizations: Arc<Mutex<HashSet<Uuid>>>,
    wake: Wake,
}

impl ChangedNames {
    /// Call it after the commit.
    pub fn mark(&self, organization_id: Uuid) {
        let mut organizations = self
            .organizations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if organizations.insert(organization_id) {
            self.wake.notify();
        }
    }

    fn take(&self) -> HashSet<Uuid> {
        let mut organizations = self
            .organizations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut organizations)
    }
}

/// Counts the names of organizations that changed, one organization at a time, until `stop`.
pub async fn run(pool: PgPool, changed: ChangedNames, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = count_changed(&pool, &changed) => {}
    }
}

async fn count_changed(pool: &PgPool, changed: &ChangedNames) {
    let mut due: HashMap<Uuid, Instant> = HashMap::new();
    let mut next_search = Instant::now();
    loop {
        let now = Instant::now();
        for organization_id in changed.take() {
            due.entry(organization_id).or_insert(now + DEBOUNCE);
        }
        if next_search <= now {
            next_search = now + jittered(SEARCH_INTERVAL);
            for organization_id in search(pool).await {
                due.entry(organization_id).or_insert(now);
            }
        }
        let first = due.iter().map(|(id, time)| (*time, *id)).min();
        if let Some((time, organization_id)) = first
            && time <= now
        {
            due.remove(&organization_id);
            if let Some(delay) = count(pool, organization_id).await {
                due.insert(organization_id, Instant::now() + delay);
            }
            sleep(now.elapsed() * PAUSE_FACTOR).await;
            continue;
        }
        let wake_time = first.map_or(next_search, |(time, _)| time.min(next_search));
        tokio::select! {
            () = changed.wake.notified() => {}
            () = sleep_until(wake_time) => {}
        }
    }
}

/// Renews a batch of an organization's keys, or, if there are none to renew, counts its names. Answers when to go on if
/// they were not counted.
async fn count(pool: &PgPool, organization_id: Uuid) -> Option<Duration> {
    let counted = within(DEADLINE, async {
        // Apart from the count, whose time decides when the next one is.
        let mut tx = begin(pool, Scope::Organization(organization_id)).await?;
        let renewed = account::renew_keys(&mut tx, organization_id).await?;
        tx.commit().await?;
        if renewed > 0 {
            return Ok(Count::KeysOutdated);
        }
        let mut tx = begin(pool, Scope::Organization(organization_id)).await?;
        let counted = name_frequency::count(&mut tx, organization_id).await?;
        tx.commit().await?;
        Ok::<_, sqlx::Error>(counted)
    });
    match counted.await {
        Ok(Count::Done) => None,
        // Other organizations come in between.
        Ok(Count::KeysOutdated) => Some(Duration::ZERO),
        Ok(Count::UnderWay) => Some(RETRY),
        Ok(Count::NotBefore(delay)) => Some(delay),
        Err(error) => {
            let error = without_data(&error);
            tracing::warn!(%organization_id, error, "names were not counted; tried again");
            Some(RETRY)
        }
    }
}

async fn search(pool: &PgPool) -> Vec<Uuid> {
    let found = within(SEARCH_DEADLINE, async {
        let mut tx = begin(pool, Scope::Platform).await?;
        let found = name_frequency::outdated(&mut tx, MAX_FOUND).await?;
        tx.rollback().await?;
        Ok::<_, sqlx::Error>(found)
    });
    found.await.unwrap_or_else(|error| {
        let error = without_data(&error);
        tracing::warn!(
            error,
            "lists whose names are not counted were not searched for"
        );
        Vec::new()
    })
}
