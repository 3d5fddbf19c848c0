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
    wake::Wake,
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

/// After a count, a pause of this many times as long: with many lists that change, a fifth of the time is spent on
/// counting.
const PAUSE_FACTOR: u32 = 4;

/// Longest pause: one list that takes long, or fails after long, does not keep the others from being counted.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

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
    let mut schedule = Schedule::default();
    let mut renewed = HashMap::new();
    let mut next_search = Instant::now();
    loop {
        let now = Instant::now();
        for organization_id in changed.take() {
            schedule.add(organization_id, now + DEBOUNCE);
        }
        if next_search <= now {
            next_search = now + jittered(SEARCH_INTERVAL);
            for organization_id in search(pool).await {
                schedule.add(organization_id, now);
            }
        }
        if let Some(organization_id) = schedule.take_due(now) {
            let counted = count(pool, organization_id, &mut renewed).await;
            let pause = schedule.counted(organization_id, counted, now, Instant::now());
            sleep(pause).await;
            continue;
        }
        let wake_time = schedule
            .next_time()
            .map_or(next_search, |time| time.min(next_search));
        tokio::select! {
            () = changed.wake.notified() => {}
            () = sleep_until(wake_time) => {}
        }
    }
}

/// When the names of which organization are counted.
#[derive(Default)]
struct Schedule(HashMap<Uuid, Instant>);

impl Schedule {
    /// Counts them at `time`, unless another time is set.
    fn add(&mut self, organization_id: Uuid, time: Instant) {
        self.0.entry(organization_id).or_insert(time);
    }

    fn first(&self) -> Option<(Instant, Uuid)> {
        self.0.iter().map(|(id, time)| (*time, *id)).min()
    }

    fn next_time(&self) -> Option<Instant> {
        self.first().map(|(time, _)| time)
    }

    /// Takes the organization whose time came first.
    fn take_due(&mut self, now: Instant) -> Option<Uuid> {
        let (_, organization_id) = self.first().filter(|(time, _)| *time <= now)?;
        self.0.remove(&organization_id);
        Some(organization_id)
    }

    /// Says when an organization is counted again, if it has to be: one whose count failed later, the longer that took.
    /// Answers the pause before the next organization.
    fn counted(
        &mut self,
        organization_id: Uuid,
        counted: Option<Count>,
        started: Instant,
        now: Instant,
    ) -> Duration {
        let own_pause = now.duration_since(started) * PAUSE_FACTOR;
        let delay = match counted {
            Some(Count::Done) => None,
            // Other organizations come in between.
            Some(Count::KeysOutdated) => Some(Duration::ZERO),
            Some(Count::UnderWay) => Some(RETRY),
            Some(Count::NotBefore(delay)) => Some(delay),
            None => Some(RETRY.max(own_pause)),
        };
        if let Some(delay) = delay {
            self.0.insert(organization_id, now + delay);
        }
        own_pause.min(LONGEST_PAUSE)
    }
}

/// Renews a batch of an organization's keys, or, if there are none to renew, counts its names. `None` if it fails.
/// `renewed` holds the last account of the batch before, for each organization in which batches follow.
async fn count(
    pool: &PgPool,
    organization_id: Uuid,
    renewed: &mut HashMap<Uuid, Uuid>,
) -> Option<Count> {
    let counted = within(DEADLINE, async {
        // Apart from the count, whose time decides when the next one is.
        let mut tx = begin(pool, Scope::Organization(organization_id)).await?;
        let after = renewed.remove(&organization_id).unwrap_or(Uuid::nil());
        let last = account::renew_keys(&mut tx, organization_id, after).await?;
        tx.commit().await?;
        if let Some(last) = last {
            renewed.insert(organization_id, last);
            return Ok(Count::KeysOutdated);
        }
        let mut tx = begin(pool, Scope::Organization(organization_id)).await?;
        let counted = name_frequency::count(&mut tx, organization_id).await?;
        tx.commit().await?;
        Ok::<_, sqlx::Error>(counted)
    });
    counted
        .await
        .inspect_err(|error| {
            let error = without_data(error);
            tracing::warn!(%organization_id, error, "names were not counted; tried again");
        })
        .ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_mins(10);

    #[test]
    fn a_count_that_fails_after_long_keeps_no_other_list_waiting() {
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let started = Instant::now();
        let now = started + LONG;
        let mut schedule = Schedule::default();
        schedule.add(one, started);
        schedule.add(other, started + DEBOUNCE);
        assert_eq!(schedule.take_due(started), Some(one));
        let pause = schedule.counted(one, None, started, now);
        assert!(pause <= Duration::from_mins(1), "{pause:?}");
        // A change does not bring it forward.
        schedule.add(one, now + DEBOUNCE);
        assert_eq!(schedule.take_due(now + pause), Some(other));
        assert_eq!(schedule.take_due(now + pause), None);
        assert_eq!(schedule.next_time(), Some(now + LONG * PAUSE_FACTOR));
    }

    #[test]
    fn a_count_that_is_quick_is_followed_by_a_short_pause() {
        let organization = Uuid::from_u128(1);
        let started = Instant::now();
        let now = started + Duration::from_secs(2);
        for (counted, again) in [
            (Some(Count::Done), None),
            (Some(Count::KeysOutdated), Some(Duration::ZERO)),
            (Some(Count::UnderWay), Some(RETRY)),
            (Some(Count::NotBefore(LONG)), Some(LONG)),
            (None, Some(Duration::from_secs(8))),
        ] {
            let mut schedule = Schedule::default();
            let pause = schedule.counted(organization, counted, started, now);
            assert_eq!(pause, Duration::from_secs(8), "{counted:?}");
            assert_eq!(schedule.next_time(), again.map(|delay| now + delay));
        }
    }
}
