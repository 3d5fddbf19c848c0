//! How long rows are stored that nobody needs for sending any more.

use std::{sync::Arc, time::Duration};

use usher_runtime::{change, housekeeping::Purge};

use crate::db::{delivery, inbox, recipient_slot, revocation, throttle};

/// Everything that is deleted when it is old: emails after `deliveries`, used slots after `slots`, the rest after the
/// times in its query.
pub fn purges(deliveries: Duration, slots: Duration) -> Arc<[Purge]> {
    let own = [
        Purge::new("inbox", |connection, limit| {
            Box::pin(inbox::purge(connection, limit))
        }),
        Purge::new("recipient_slots", move |connection, limit| {
            Box::pin(recipient_slot::purge(connection, slots, limit))
        }),
        Purge::new("throttles", |connection, limit| {
            Box::pin(throttle::purge(connection, limit))
        }),
        Purge::new("revocations", |connection, limit| {
            Box::pin(revocation::purge(connection, limit))
        }),
        Purge::new("kept tokens", |connection, limit| {
            Box::pin(delivery::wipe_tokens(connection, limit))
        }),
        Purge::new("deliveries", move |connection, limit| {
            Box::pin(delivery::purge(connection, deliveries, limit))
        }),
    ];
    change::purges().into_iter().chain(own).collect()
}
