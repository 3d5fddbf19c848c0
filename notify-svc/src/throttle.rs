//! Limits that delay emails and never drop them: GCRA (ITU-T I.371, "virtual scheduling"), arithmetic only.
//!
//! A limit of `burst` emails in `period` lets `burst` emails go at once and then one every
//! `period / burst`. All that it remembers of a key is one time: the theoretical arrival time (TAT) of the
//! next email. Each email asks for a slot and gets the exact time at which it may go; asking twice takes
//! two slots.
//!
//! The rows are in [`crate::db::throttle`], which adds a whole batch to a key in one upsert; the
//! slots of the single emails follow from the sum.

use std::{fmt, str::FromStr, time::Duration};

use aws_lc_rs::digest;
use usher_runtime::hidden_debug;

/// Microseconds since 1970, as the database keeps them.
pub type Micros = i64;

/// So many emails in such a period, for example `5/24h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    burst: u32,
    period: Duration,
}

/// What is limited.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Which limit.
    pub limit_name: &'static str,
    hash: [u8; 32],
}

hidden_debug!(Key { limit_name });

impl Key {
    /// The key of `value`, for example an address, of which only the hash is kept.
    #[must_use]
    pub fn new(limit_name: &'static str, value: &str) -> Self {
        let digest = digest::digest(&digest::SHA256, value.as_bytes());
        let mut hash = [0; 32];
        hash.copy_from_slice(digest.as_ref());
        Self { limit_name, hash }
    }

    /// SHA-256 of the value.
    #[must_use]
    pub fn hash(&self) -> &[u8] {
        &self.hash
    }
}

/// Why the text of a limit was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLimit {
    /// It has another shape.
    #[error("expected emails/period, for example 5/24h or 100/1s")]
    Malformed,
    /// There is no time between two emails that a clock of microseconds could keep.
    #[error(
        "expected at least 1 email, a period of at most 366 days, and at most 1000000 emails a second"
    )]
    OutOfRange,
}

impl Limit {
    /// `burst` emails in `period`.
    ///
    /// # Errors
    /// If either is out of range.
    pub fn new(burst: u32, period: Duration) -> Result<Self, InvalidLimit> {
        let limit = Self { burst, period };
        let in_range = burst > 0
            && period <= Duration::from_hours(366 * 24)
            && limit.interval() >= Duration::from_micros(1);
        if in_range {
            Ok(limit)
        } else {
            Err(InvalidLimit::OutOfRange)
        }
    }

    /// Most emails in the period.
    #[must_use]
    pub fn burst(&self) -> u32 {
        self.burst
    }

    /// The period.
    #[must_use]
    pub fn period(&self) -> Duration {
        self.period
    }

    /// The time between two emails of a key that has used up its burst.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.period / self.burst.max(1)
    }

    /// How far the TAT moves for `count` emails.
    #[must_use]
    pub fn advance(&self, count: usize) -> Micros {
        micros(self.interval()).saturating_mul(Micros::try_from(count).unwrap_or(Micros::MAX))
    }

    /// The slots of `count` emails that moved the TAT to `arrival`, in order, none before `now`.
    #[must_use]
    pub fn slots(&self, arrival: Micros, count: usize, now: Micros) -> Vec<Micros> {
        let interval = micros(self.interval());
        let tolerance = interval.saturating_mul(Micros::from(self.burst) - 1);
        let base = arrival.saturating_sub(self.advance(count));
        (0..count)
            .map(|index| {
                let index = Micros::try_from(index).unwrap_or(Micros::MAX);
                base.saturating_add(interval.saturating_mul(index))
                    .saturating_sub(tolerance)
                    .max(now)
            })
            .collect()
    }
}

fn micros(duration: Duration) -> Micros {
    Micros::try_from(duration.as_micros()).unwrap_or(Micros::MAX)
}

impl FromStr for Limit {
    type Err = InvalidLimit;

    fn from_str(text: &str) -> Result<Self, InvalidLimit> {
        let (burst, period) = text.split_once('/').ok_or(InvalidLimit::Malformed)?;
        Self::new(
            burst.trim().parse().map_err(|_| InvalidLimit::Malformed)?,
            humantime::parse_duration(period.trim()).map_err(|_| InvalidLimit::Malformed)?,
        )
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}/{}",
            self.burst,
            humantime::format_duration(self.period)
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    /// GCRA as the textbook has it: one email at a time.
    fn reserve_one(limit: &Limit, arrival: Option<Micros>, now: Micros) -> (Micros, Micros) {
        let arrival = arrival.unwrap_or(now).max(now) + limit.advance(1);
        (arrival, limit.slots(arrival, 1, now)[0])
    }

    #[test]
    fn five_go_at_once_and_the_sixth_waits_for_a_fifth_of_the_day() {
        let limit = Limit::new(5, DAY).unwrap();
        let now = 1_000_000;
        let slots = limit.slots(now + limit.advance(6), 6, now);
        assert_eq!(&slots[..5], [now; 5]);
        assert_eq!(slots[5], now + 24 * 3600 * 1_000_000 / 5);
    }

    #[test]
    fn limits_are_read_as_they_are_written() {
        let limit: Limit = "5/24h".parse().unwrap();
        assert_eq!(limit, Limit::new(5, DAY).unwrap());
        assert_eq!(limit.to_string().parse(), Ok(limit));
        assert_eq!("5".parse::<Limit>(), Err(InvalidLimit::Malformed));
        assert_eq!("0/1s".parse::<Limit>(), Err(InvalidLimit::OutOfRange));
        assert_eq!("2000000/1s".parse::<Limit>(), Err(InvalidLimit::OutOfRange));
    }

    proptest! {
        #[test]
        fn a_batch_gets_the_slots_of_one_by_one(
            burst in 1_u32..20,
            seconds in 1_u64..100_000,
            count in 0_usize..60,
            before in prop::option::of(-1_000_000_000_i64..1_000_000_000),
        ) {
            let limit = Limit::new(burst, Duration::from_secs(seconds)).unwrap();
            let now = 5_000_000;
            let before = before.map(|offset| now + offset);
            let mut arrival = before;
            let one_by_one: Vec<_> = (0..count).map(|_| {
                let (next, slot) = reserve_one(&limit, arrival, now);
                arrival = Some(next);
                slot
            }).collect();
            let batch_arrival = before.unwrap_or(now).max(now) + limit.advance(count);
            prop_assert_eq!(limit.slots(batch_arrival, count, now), one_by_one);
        }

        #[test]
        fn no_window_holds_more_than_the_limit_lets_through(
            burst in 1_u32..10,
            interval in 1_i64..1_000,
            gaps in prop::collection::vec(0_i64..500, 1..80),
        ) {
            let period = Duration::from_micros((interval * i64::from(burst)).unsigned_abs());
            let limit = Limit::new(burst, period).unwrap();
            let mut now = 0;
            let mut arrival = None;
            let mut slots = Vec::new();
            for gap in gaps {
                now += gap;
                let (next, slot) = reserve_one(&limit, arrival, now);
                arrival = Some(next);
                prop_assert!(slot >= now);
                slots.push(slot);
            }
            // Slots are given in order, and after the burst they are an interval apart.
            prop_assert!(slots.is_sorted());
            for window in slots.windows(burst as usize + 1) {
                prop_assert!(window[burst as usize] - window[0] >= interval);
            }
            // In any window of length w at most burst + w / interval emails go.
            for (index, start) in slots.iter().enumerate() {
                for (count, end) in slots[index..].iter().enumerate() {
                    let most = i64::from(burst) + (end - start) / interval;
                    prop_assert!(i64::try_from(count).unwrap() < most);
                }
            }
        }
    }
}
