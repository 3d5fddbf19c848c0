//! Events that were taken in.

use std::collections::HashSet;

use sqlx::PgConnection;
use uuid::Uuid;

/// Notes events and returns those that were not known.
///
/// # Errors
/// If the database fails.
pub async fn insert(
    connection: &mut PgConnection,
    event_ids: &[Uuid],
) -> Result<HashSet<Uuid>, sqlx::Error> {
    // Sorted, so that two replicas with the same events wait for each other instead of deadlocking.
    let mut sorted = event_ids.to_vec();
    sorted.sort_unstable();
    let new = sqlx::query_scalar!(
        "INSERT INTO inbox (event_id)
         SELECT event_id FROM unnest($1::uuid[]) AS event_id
         ON CONFLICT DO NOTHING
         RETURNING event_id",
        &sorted
    )
    .fetch_all(connection)
    .await?;
    Ok(new.into_iter().collect())
}

/// Deletes at most `limit` events that arrived more than 30 days ago: they do not come again.
///
/// # Errors
/// If the database fails.
pub async fn purge(connection: &mut PgConnection, limit: i64) -> Result<u64, sqlx::Error> {
    let deleted = sqlx::query!(
        "DELETE FROM inbox WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM inbox
            WHERE receive_time < now() - interval '30 days'
            ORDER BY receive_time LIMIT $1))",
        limit
    )
    .execute(connection)
    .await?;
    Ok(deleted.rows_affected())
}
