//! Limits that delay emails and never drop them: GCRA (ITU-T I.371, "virtual scheduling"), arithmetic only.
//!
//! A limit of `burst` emails in `period` lets `burst` emails go at once and then one every
//! `period / burst`. All that it remembers of a key is one time: the theoretical arrival time (TAT) of the
//! next email. An email asks when it may go, and moves the TAT when it goes: nothing is reserved.
//!
//! The rows are in [`crate::db::throttle`].

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

    /// When an email may go, not before `now`, if the TAT is `arrival`. `leaving` says how many places of the burst are
    /// to stay free; one is taken at least.
    #[must_use]
    pub fn free_time(&self, arrival: Micros, now: Micros, leaving: u32) -> Micros {
        let usable = self.burst.saturating_sub(leaving).max(1);
        let tolerance = self
            .interval_micros()
            .saturating_mul(Micros::from(usable) - 1);
        arrival.saturating_sub(tolerance).max(now)
    }

    /// The TAT after an email went at `now`, if it was `arrival`.
    #[must_use]
    pub fn next_arrival(&self, arrival: Micros, now: Micros) -> Micros {
        arrival.max(now).saturating_add(self.interval_micros())
    }

    /// The time between two emails of a key that has used up its burst, in microseconds.
    #[must_use]
    pub fn interval_micros(&self) -> Micros {
        micros(self.interval())
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

    #[test]
    fn five_go_at_once_and_the_sixth_waits_for_a_fifth_of_the_day() {
        let limit = Limit::new(5, DAY).unwrap();
        let now = 1_000_000;
        let mut arrival = 0;
        for _ in 0..5 {
            assert_eq!(limit.free_time(arrival, now, 0), now);
            arrival = limit.next_arrival(arrival, now);
        }
        let sixth = now + 24 * 3600 * 1_000_000 / 5;
        assert_eq!(limit.free_time(arrival, now, 0), sixth);
    }

    #[test]
    fn a_place_of_the_burst_can_be_left_free() {
        let limit = Limit::new(2, Duration::from_secs(2)).unwrap();
        let arrival = limit.next_arrival(0, 10);
        assert_eq!(limit.free_time(arrival, 10, 1), 1_000_010);
        assert_eq!(limit.free_time(arrival, 10, 0), 10);
        // There is no place to leave.
        let single = Limit::new(1, Duration::from_secs(1)).unwrap();
        assert_eq!(single.free_time(0, 10, 1), 10);
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
        fn no_window_holds_more_than_the_limit_lets_through(
            burst in 1_u32..10,
            interval in 1_i64..1_000,
            // When each email asks, and whether it leaves a place free.
            emails in prop::collection::vec((0_i64..500, any::<bool>()), 1..80),
        ) {
            let period = Duration::from_micros((interval * i64::from(burst)).unsigned_abs());
            let limit = Limit::new(burst, period).unwrap();
            let (mut now, mut arrival) = (0, 0);
            let mut gone = Vec::new();
            for (gap, leaves) in emails {
                now += gap;
                let free = limit.free_time(arrival, now, u32::from(leaves));
                prop_assert!(free >= now);
                // It comes again at the time that it was told.
                now = free;
                prop_assert_eq!(limit.free_time(arrival, now, u32::from(leaves)), now);
                arrival = limit.next_arrival(arrival, now);
                gone.push(now);
            }
            // In any window of length w at most burst + w / interval emails go.
            for (index, start) in gone.iter().enumerate() {
                for (count, end) in gone[index..].iter().enumerate() {
                    let most = i64::from(burst) + (end - start) / interval;
                    prop_assert!(i64::try_from(count).unwrap() < most);
                }
            }
        }
    }
}
