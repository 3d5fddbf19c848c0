//! Times on the wire: `google.protobuf.Timestamp` and the database's times.

use prost_types::Timestamp;
use time::OffsetDateTime;

/// A time of the database as it goes over the wire.
#[must_use]
pub fn encode(time: OffsetDateTime) -> Timestamp {
    Timestamp {
        seconds: time.unix_timestamp(),
        // Below a billion always.
        nanos: time.nanosecond().try_into().unwrap_or_default(),
    }
}

/// A time from the wire; `None` for what is outside the years 1 to 9999 or has nanoseconds outside 0 to
/// 999,999,999 (google/protobuf/timestamp.proto).
#[must_use]
pub fn decode(timestamp: Timestamp) -> Option<OffsetDateTime> {
    let nanos = u32::try_from(timestamp.nanos).ok()?;
    OffsetDateTime::from_unix_timestamp(timestamp.seconds)
        .ok()
        .filter(|time| time.year() >= 1)?
        .replace_nanosecond(nanos)
        .ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn decoding_never_panics_and_leads_back(seconds in any::<i64>(), nanos in any::<i32>()) {
            let timestamp = Timestamp { seconds, nanos };
            if let Some(time) = decode(timestamp) {
                prop_assert_eq!(encode(time), timestamp);
            }
        }

        #[test]
        fn times_of_our_age_survive(seconds in 0_i64..4_102_444_800, nanos in 0_i32..1_000_000_000) {
            let timestamp = Timestamp { seconds, nanos };
            prop_assert_eq!(decode(timestamp).map(encode), Some(timestamp));
        }
    }

    #[test]
    fn a_billion_nanoseconds_are_refused() {
        for nanos in [1_000_000_000, i32::MAX, -1] {
            assert_eq!(decode(Timestamp { seconds: 1, nanos }), None);
        }
    }
}
