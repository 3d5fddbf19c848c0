//! Times for people.

use time::OffsetDateTime;
use time::macros::format_description;

/// A moment as people read it, for example `15 December 2026 at 14:30 UTC`; `seconds` count from 1970.
pub(crate) fn from_unix(seconds: i64) -> String {
    let format =
        format_description!("[day padding:none] [month repr:long] [year] at [hour]:[minute] UTC");
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|time| time.format(&format).ok())
        .unwrap_or_default()
}
