//! The rows of the limits: one time for each key. The arithmetic is in [`crate::throttle`].

use std::collections::BTreeMap;

use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::throttle::{Key, Limit, Micros};

/// Reserves one slot in each of an email's limits, for a batch of emails, and returns for each the first
/// time at which all of its limits let it go: `None` for at once.
///
/// The slots last: an email that is not sent after all has used its slot.
///
/// # Errors
/// If the database fails.
pub async fn reserve(
    connection: &mut PgConnection,
    emails: &[Vec<(Key, Limit)>],
) -> Result<Vec<Option<OffsetDateTime>>, sqlx::Error> {
    // In the order of the keys, so that two replicas wait for each other instead of deadlocking.
    let mut users: BTreeMap<&Key, (Limit, Vec<usize>)> = BTreeMap::new();
    for (index, limits) in emails.iter().enumerate() {
        for (key, limit) in limits {
            users
                .entry(key)
                .or_insert((*limit, Vec::new()))
                .1
                .push(index);
        }
    }
    let mut slots: Vec<Option<Micros>> = vec![None; emails.len()];
    if users.is_empty() {
        return Ok(vec![None; emails.len()]);
    }
    let (now, arrivals) = advance(connection, &users).await?;
    for ((limit, indexes), arrival) in users.values().zip(arrivals) {
        for (index, slot) in indexes.iter().zip(limit.slots(arrival, indexes.len(), now)) {
            if slot > now {
                slots[*index] = slots[*index].max(Some(slot));
            }
        }
    }
    Ok(slots.into_iter().map(|slot| slot.map(instant)).collect())
}

/// Moves the time of each key for all its emails at once. Returns the time of the transaction and the new
/// times, in the order of the keys.
async fn advance(
    connection: &mut PgConnection,
    users: &BTreeMap<&Key, (Limit, Vec<usize>)>,
) -> Result<(Micros, Vec<Micros>), sqlx::Error> {
    let names: Vec<String> = users.keys().map(|key| key.limit_name.to_owned()).collect();
    let hashes: Vec<Vec<u8>> = users.keys().map(|key| key.hash().to_vec()).collect();
    let advances: Vec<i64> = users
        .values()
        .map(|(limit, indexes)| limit.advance(indexes.len()))
        .collect();
    let rows = sqlx::query!(
        r#"WITH clock AS (
                SELECT floor(extract(epoch FROM now()) * 1000000)::bigint AS micros
           ), moved AS (
                INSERT INTO throttles AS throttle (limit_name, key_hash, arrival_micros)
                SELECT key.limit_name, key.key_hash, clock.micros + key.advance
                FROM clock, unnest($1::text[], $2::bytea[], $3::bigint[])
                    AS key (limit_name, key_hash, advance)
                -- What is inserted is now + advance; what stands there may be ahead of now by more.
                ON CONFLICT (limit_name, key_hash) DO UPDATE SET arrival_micros =
                    excluded.arrival_micros
                    + greatest(0, throttle.arrival_micros - (SELECT micros FROM clock))
                RETURNING limit_name, key_hash, arrival_micros
           )
           SELECT moved.limit_name, moved.key_hash, moved.arrival_micros,
                clock.micros AS "now_micros!"
           FROM moved, clock"#,
        &names,
        &hashes,
        &advances
    )
    .fetch_all(connection)
    .await?;
    let now = rows.first().map_or(0, |row| row.now_micros);
    let moved: BTreeMap<(String, Vec<u8>), Micros> = rows
        .into_iter()
        .map(|row| ((row.limit_name, row.key_hash), row.arrival_micros))
        .collect();
    let arrivals = names
        .into_iter()
        .zip(hashes)
        .map(|key| moved.get(&key).copied().unwrap_or(now))
        .collect();
    Ok((now, arrivals))
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

fn instant(micros: Micros) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
