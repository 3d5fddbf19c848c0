//! The rows of the limits: one time for each key. The arithmetic is in [`crate::throttle`].

use std::collections::{BTreeMap, BTreeSet};

use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::throttle::{Key, Micros};

/// Limits that are locked until the end of the transaction.
#[derive(Debug, Default)]
pub struct Locked {
    /// Now, by the database.
    pub now: Micros,
    /// The theoretical arrival time of each key's next email.
    pub arrivals: BTreeMap<Key, Micros>,
}

/// Locks keys, in their order, so that two replicas wait for each other instead of deadlocking.
///
/// # Errors
/// If the database fails.
pub async fn lock(
    connection: &mut PgConnection,
    keys: BTreeSet<Key>,
) -> Result<Locked, sqlx::Error> {
    if keys.is_empty() {
        return Ok(Locked::default());
    }
    let rows = sqlx::query!(
        r#"INSERT INTO throttles AS throttle (limit_name, key_hash, arrival_micros)
           SELECT key.limit_name, key.key_hash, 0 FROM unnest($1::text[], $2::bytea[]) AS key (limit_name, key_hash)
           ON CONFLICT (limit_name, key_hash) DO UPDATE SET arrival_micros = throttle.arrival_micros
           RETURNING limit_name, key_hash, arrival_micros,
                -- Not of the transaction: it may have waited for these locks.
                floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS "now_micros!""#,
        &names(keys.iter()),
        &hashes(keys.iter())
    )
    .fetch_all(connection)
    .await?;
    let now = rows
        .iter()
        .map(|row| row.now_micros)
        .max()
        .unwrap_or_default();
    let arrivals: BTreeMap<_, _> = rows
        .into_iter()
        .map(|row| ((row.limit_name, row.key_hash), row.arrival_micros))
        .collect();
    let arrivals = keys.into_iter().filter_map(|key| {
        let arrival = arrivals.get(&(key.limit_name.to_owned(), key.hash().to_vec()))?;
        Some((key, *arrival))
    });
    Ok(Locked {
        now,
        arrivals: arrivals.collect(),
    })
}

/// The time of the transaction.
///
/// # Errors
/// If the database fails.
pub async fn now(connection: &mut PgConnection) -> Result<OffsetDateTime, sqlx::Error> {
    sqlx::query_scalar!(r#"SELECT now() AS "now!""#)
        .fetch_one(connection)
        .await
}

/// Reads keys without locking them.
///
/// # Errors
/// If the database fails.
pub async fn read(
    connection: &mut PgConnection,
    keys: &[Key],
) -> Result<BTreeMap<(String, Vec<u8>), Micros>, sqlx::Error> {
    if keys.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows = sqlx::query!(
        "SELECT limit_name, key_hash, arrival_micros FROM throttles
         JOIN unnest($1::text[], $2::bytea[]) AS key (limit_name, key_hash) USING (limit_name, key_hash)",
        &names(keys.iter()),
        &hashes(keys.iter())
    )
    .fetch_all(connection)
    .await?;
    let arrivals = rows
        .into_iter()
        .map(|row| ((row.limit_name, row.key_hash), row.arrival_micros));
    Ok(arrivals.collect())
}

/// Writes the new times of keys that are locked.
///
/// # Errors
/// If the database fails.
pub async fn write(
    connection: &mut PgConnection,
    arrivals: &[(&Key, Micros)],
) -> Result<(), sqlx::Error> {
    if arrivals.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE throttles SET arrival_micros = key.arrival_micros
         FROM unnest($1::text[], $2::bytea[], $3::bigint[]) AS key (limit_name, key_hash, arrival_micros)
         WHERE throttles.limit_name = key.limit_name AND throttles.key_hash = key.key_hash",
        &names(arrivals.iter().map(|(key, _)| *key)),
        &hashes(arrivals.iter().map(|(key, _)| *key)),
        &arrivals.iter().map(|(_, arrival)| *arrival).collect::<Vec<_>>()
    )
    .execute(connection)
    .await?;
    Ok(())
}

fn names<'a>(keys: impl Iterator<Item = &'a Key>) -> Vec<String> {
    keys.map(|key| key.limit_name.to_owned()).collect()
}

fn hashes<'a>(keys: impl Iterator<Item = &'a Key>) -> Vec<Vec<u8>> {
    keys.map(|key| key.hash().to_vec()).collect()
}

/// Deletes at most `limit` idle throttles: their time has passed, so that they would be treated like new ones.
///
/// # Errors
/// If the database fails.
pub async fn purge(connection: &mut PgConnection, limit: i64) -> Result<u64, sqlx::Error> {
    let deleted = sqlx::query!(
        "DELETE FROM throttles WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM throttles
            WHERE arrival_micros < (extract(epoch FROM now() - interval '1 hour') * 1000000)::bigint
            ORDER BY arrival_micros LIMIT $1
            FOR UPDATE SKIP LOCKED))",
        limit
    )
    .execute(connection)
    .await?;
    Ok(deleted.rows_affected())
}
