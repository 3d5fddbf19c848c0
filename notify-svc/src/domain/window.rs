//! When a recipient can be written to: never more than so many emails in any period, and never two within a gap.
//!
//! `5/24h` with a gap of `60s` is meant literally: no 24 hours hold a sixth email, wherever they begin, and any two emails
//! are a minute apart. A period does not hold its end: the sixth email may go exactly 24 hours after the first.

use std::time::Duration;

use time::OffsetDateTime;

/// Most emails of a recipient in any period, and the least time between two of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// At least 1.
    most: usize,
    period: Duration,
    /// Zero means none.
    gap: Duration,
}

impl Window {
    /// At most `most` emails, at least 1, in any `period`, and none within `gap` of another.
    #[must_use]
    pub fn new(most: u32, period: Duration, gap: Duration) -> Self {
        Self {
            most: usize::try_from(most).unwrap_or(usize::MAX).max(1),
            period,
            gap,
        }
    }

    /// The same limit without its gap.
    #[must_use]
    pub fn without_gap(self) -> Self {
        Self {
            gap: Duration::ZERO,
            ..self
        }
    }

    /// Its gap alone; `None` if it has none.
    #[must_use]
    pub fn gap_alone(self) -> Option<Self> {
        (!self.gap.is_zero()).then_some(Self {
            most: usize::MAX,
            ..self
        })
    }

    /// How long an email counts.
    #[must_use]
    pub fn memory(&self) -> Duration {
        self.period.max(self.gap)
    }

    /// The first time from `from` on at which another email may go, beside those at the times `taken`, ascending.
    #[must_use]
    pub fn next_slot(&self, taken: &[OffsetDateTime], from: OffsetDateTime) -> OffsetDateTime {
        let mut slot = from;
        // Each step ends one of the times in which nothing may go.
        while let Some(later) = self
            .end_of_gap(taken, slot)
            .or_else(|| self.end_of_full_period(taken, slot))
        {
            slot = later;
        }
        slot
    }

    /// When no email is within the gap of `slot` any more, if one is.
    fn end_of_gap(&self, taken: &[OffsetDateTime], slot: OffsetDateTime) -> Option<OffsetDateTime> {
        let last = taken[..before(taken, slot + self.gap)].last()?;
        ((slot - *last).unsigned_abs() < self.gap).then_some(*last + self.gap)
    }

    /// When the first of the emails that make a period with `slot` in it too full does not count any more, if they do.
    fn end_of_full_period(
        &self,
        taken: &[OffsetDateTime],
        slot: OffsetDateTime,
    ) -> Option<OffsetDateTime> {
        // Only emails that are less than a period away: few, however many there are.
        let from = taken.partition_point(|time| *time <= slot - self.period);
        let near = &taken[from..before(taken, slot + self.period)];
        let full = near.windows(self.most).rfind(|emails| {
            let (first, last) = (emails[0], emails[emails.len() - 1]);
            // From the first of all, this one among them, to the last.
            last.max(slot) - first.min(slot) < self.period
        });
        Some(full?[0] + self.period)
    }
}

/// How many of the times, ascending, are before `end`.
fn before(taken: &[OffsetDateTime], end: OffsetDateTime) -> usize {
    taken.partition_point(|time| *time < end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: Duration = Duration::from_hours(24);
    const MINUTE: Duration = Duration::from_mins(1);

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(seconds)
    }

    /// The slots of emails that may go from the times `from` on, each after those before it have got theirs.
    fn slots(
        window: &Window,
        from: impl IntoIterator<Item = OffsetDateTime>,
    ) -> Vec<OffsetDateTime> {
        let mut taken: Vec<OffsetDateTime> = Vec::new();
        let slots = from.into_iter().map(|from| {
            let slot = window.next_slot(&taken, from);
            taken.insert(taken.partition_point(|time| *time <= slot), slot);
            slot
        });
        slots.collect()
    }

    /// Whether an email may go at `slot`, by trying all periods and neighbours.
    fn is_allowed(window: &Window, taken: &[i64], slot: i64) -> bool {
        let period = i64::try_from(window.period.as_secs()).unwrap();
        let gap = i64::try_from(window.gap.as_secs()).unwrap();
        let in_period = |start: i64| {
            let others = taken
                .iter()
                .filter(|time| (start..start + period).contains(*time));
            others.count()
        };
        taken.iter().all(|time| (slot - time).abs() >= gap)
            && (slot - period + 1..=slot).all(|start| in_period(start) < window.most)
    }

    #[test]
    fn five_go_a_minute_apart_and_the_sixth_a_day_after_the_first() {
        let window = Window::new(5, DAY, MINUTE);
        let slots = slots(&window, [at(0); 7]);
        let expected = [0, 60, 120, 180, 240, 86_400, 86_460].map(at);
        assert_eq!(slots, expected);
    }

    #[test]
    fn a_place_between_others_is_used() {
        let window = Window::new(5, DAY, MINUTE);
        assert_eq!(window.next_slot(&[at(0), at(120)], at(0)), at(60));
        assert_eq!(window.next_slot(&[at(0), at(119)], at(0)), at(179));
        // A retry at noon leaves the morning to the others.
        assert_eq!(window.next_slot(&[at(43_200)], at(0)), at(0));
    }

    #[test]
    fn what_was_sent_late_counts_from_when_it_went() {
        let window = Window::new(2, DAY, Duration::ZERO);
        let late = [at(100_000), at(100_001)];
        assert_eq!(window.next_slot(&late, at(100_002)), at(186_400));
    }

    proptest! {
        #[test]
        fn a_slot_is_the_first_time_that_is_allowed(
            most in 1_u32..5,
            period in 1_u64..30,
            gap in 0_u64..8,
            // Also more than is allowed: the limit may have been higher.
            taken in prop::collection::vec(0_i64..80, 0..12),
            from in 0_i64..80,
        ) {
            let window = Window::new(most, Duration::from_secs(period), Duration::from_secs(gap));
            let mut taken = taken;
            taken.sort_unstable();
            let times: Vec<_> = taken.iter().copied().map(at).collect();
            let first = (from..from + 10_000).find(|slot| is_allowed(&window, &taken, *slot)).unwrap();
            prop_assert_eq!(window.next_slot(&times, at(from)), at(first));
        }

        #[test]
        fn no_period_holds_one_too_many(
            most in 1_u32..5,
            period in 1_u64..30,
            gap in 0_u64..8,
            from in prop::collection::vec(0_i64..60, 0..25),
        ) {
            let window = Window::new(most, Duration::from_secs(period), Duration::from_secs(gap));
            let mut slots = slots(&window, from.into_iter().map(at));
            slots.sort_unstable();
            for emails in slots.windows(window.most + 1) {
                prop_assert!((emails[window.most] - emails[0]).unsigned_abs() >= window.period);
            }
            for emails in slots.windows(2) {
                prop_assert!((emails[1] - emails[0]).unsigned_abs() >= window.gap);
            }
        }
    }
}
