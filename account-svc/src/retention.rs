//! How long rows are stored that no call needs any more; the times are in the queries.

use std::sync::Arc;

use usher_runtime::housekeeping::Purge;

use crate::db::{audit, login_throttle, stored_response, token};

/// Everything that is deleted when it is old.
#[must_use]
pub fn purges() -> Arc<[Purge]> {
    Arc::new([
        Purge::new("stored_responses", |connection, limit| {
            Box::pin(stored_response::purge(connection, limit))
        }),
        Purge::new("login_throttles", |connection, limit| {
            Box::pin(login_throttle::purge(connection, limit))
        }),
        Purge::new("login_sources", |connection, limit| {
            Box::pin(login_throttle::purge_sources(connection, limit))
        }),
        Purge::new("tokens", |connection, limit| {
            Box::pin(token::purge(connection, limit))
        }),
        Purge::new("audit_events", |connection, limit| {
            Box::pin(audit::purge(connection, limit))
        }),
    ])
}
