//! How long rows are stored that no call needs any more; the times are in the queries.

use std::sync::Arc;

use usher_runtime::{change, housekeeping::Purge};

use crate::db::{login_throttle, token};

/// Everything that is deleted when it is old.
#[must_use]
pub fn purges() -> Arc<[Purge]> {
    let own = [
        Purge::new("login_throttles", |connection, limit| {
            Box::pin(login_throttle::purge(connection, limit))
        }),
        Purge::new("login_sources", |connection, limit| {
            Box::pin(login_throttle::purge_sources(connection, limit))
        }),
        Purge::new("tokens", |connection, limit| {
            Box::pin(token::purge(connection, limit))
        }),
    ];
    change::purges().into_iter().chain(own).collect()
}
