//! The limits that emails share: domain, organization, relay. They are checked when an email is about to go, and charged
//! when it goes, retries too: nothing is reserved ahead, so 100,000 waiting emails delay no other.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    db::throttle::{self, Locked},
    limits::RELAY,
    throttle::{Key, Limit, Micros},
};

/// What limits an email.
pub type EmailLimits = Vec<(Key, Limit)>;

/// Why an email does not go now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocked {
    /// The relay's limit is used up until this time, for all emails of this urgency: it stays where it is.
    Relay(Micros),
    /// A limit of its own; it is looked at again at this time.
    Until(Micros),
}

/// Limits of some emails, locked until the end of the transaction. Nothing is written before [`Self::write`].
#[derive(Debug, Default)]
pub struct SharedThrottle {
    locked: Locked,
    changed: BTreeSet<Key>,
}

impl SharedThrottle {
    /// Locks the limits of emails.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn lock<'a>(
        connection: &mut PgConnection,
        emails: impl IntoIterator<Item = &'a EmailLimits>,
    ) -> Result<Self, sqlx::Error> {
        let keys = emails.into_iter().flatten().map(|(key, _)| key.clone());
        Ok(Self {
            locked: throttle::lock(connection, keys.collect()).await?,
            changed: BTreeSet::new(),
        })
    }

    /// Now, by the database.
    #[must_use]
    pub fn now(&self) -> Micros {
        self.locked.now
    }

    /// What holds an email of `organization_id` back, if anything does. Bulk mail leaves a place of each burst to mail
    /// that is more urgent, and waits in `lines`.
    #[must_use]
    pub fn check(
        &self,
        limits: &EmailLimits,
        organization_id: Uuid,
        bulk: Option<&mut Lines>,
    ) -> Option<Blocked> {
        let now = self.locked.now;
        let leaving = u32::from(bulk.is_some());
        let blocking = limits.iter().filter_map(|(key, limit)| {
            let free = limit.free_time(self.arrival(key), now, leaving);
            (free > now).then_some((key, limit, free))
        });
        // The relay's comes last: others can be waited for elsewhere.
        let (key, limit, free) =
            blocking.max_by_key(|(key, _, free)| (key.limit_name != RELAY, *free))?;
        if key.limit_name == RELAY {
            return Some(Blocked::Relay(free));
        }
        Some(Blocked::Until(match bulk {
            Some(lines) => lines.next(key, organization_id, free, limit.interval_micros()),
            None => free,
        }))
    }

    /// An email goes.
    pub fn charge(&mut self, limits: &EmailLimits) {
        self.change(limits, |limit, arrival, now| {
            limit.next_arrival(arrival, now)
        });
    }

    /// An email that was charged does not go after all.
    pub fn give_back(&mut self, limits: &EmailLimits) {
        self.change(limits, |limit, arrival, _| {
            arrival - limit.interval_micros()
        });
    }

    /// Writes the limits of those that go.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn write(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let arrivals: Vec<_> = self
            .changed
            .iter()
            .map(|key| (key, self.arrival(key)))
            .collect();
        throttle::write(connection, &arrivals).await
    }

    fn arrival(&self, key: &Key) -> Micros {
        self.locked.arrivals.get(key).copied().unwrap_or_default()
    }

    fn change(&mut self, limits: &EmailLimits, change: impl Fn(&Limit, Micros, Micros) -> Micros) {
        for (key, limit) in limits {
            let arrival = change(limit, self.arrival(key), self.locked.now);
            self.locked.arrivals.insert(key.clone(), arrival);
            self.changed.insert(key.clone());
        }
    }
}

/// Where bulk mail stands in line for a limit, each organization in a line of its own: so that a run of 100,000 does not
/// come back all at once, and again after each email that goes. A line is a guess, kept by each process for itself.
#[derive(Debug, Default)]
pub struct Lines(BTreeMap<(Key, Uuid), Micros>);

impl Lines {
    /// The time of the next email in line, not before `free`.
    fn next(&mut self, key: &Key, organization_id: Uuid, free: Micros, interval: Micros) -> Micros {
        let end = self.0.entry((key.clone(), organization_id)).or_insert(0);
        *end = end.saturating_add(interval).max(free);
        *end
    }

    /// Forgets the lines that have passed.
    pub fn forget_before(&mut self, now: Micros) {
        self.0.retain(|_, end| *end > now);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Micros = 1_000_000;
    const NOW: Micros = 50 * SECOND;

    fn throttle() -> SharedThrottle {
        let mut throttle = SharedThrottle::default();
        throttle.locked.now = NOW;
        throttle
    }

    fn limits(name: &'static str, burst: u32) -> EmailLimits {
        let limit = Limit::new(burst, Duration::from_secs(burst.into())).unwrap();
        vec![(Key::new(name, "a"), limit)]
    }

    #[test]
    fn bulk_mail_leaves_a_place_and_stands_in_line() {
        let mut throttle = throttle();
        let mut lines = Lines::default();
        let limits = limits("domain", 2);
        let organization = Uuid::from_u128(1);
        assert_eq!(
            throttle.check(&limits, organization, Some(&mut lines)),
            None
        );
        throttle.charge(&limits);
        let mut bulk = |organization| throttle.check(&limits, organization, Some(&mut lines));
        assert_eq!(bulk(organization), Some(Blocked::Until(NOW + SECOND)));
        assert_eq!(bulk(organization), Some(Blocked::Until(NOW + 2 * SECOND)));
        assert_eq!(bulk(Uuid::from_u128(2)), Some(Blocked::Until(NOW + SECOND)));
        assert_eq!(throttle.check(&limits, organization, None), None);
        throttle.charge(&limits);
        let urgent = throttle.check(&limits, organization, None);
        assert_eq!(urgent, Some(Blocked::Until(NOW + SECOND)));
    }

    #[test]
    fn what_does_not_go_after_all_is_not_charged() {
        let mut throttle = throttle();
        let limits = limits(RELAY, 1);
        throttle.charge(&limits);
        let blocked = throttle.check(&limits, Uuid::nil(), None);
        assert_eq!(blocked, Some(Blocked::Relay(NOW + SECOND)));
        throttle.give_back(&limits);
        assert_eq!(throttle.check(&limits, Uuid::nil(), None), None);
    }
}
