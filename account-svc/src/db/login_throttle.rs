//! Limits on guessing passwords, by the generic cell rate algorithm (ITU-T I.371, annex A): each attempt
//! moves a theoretical arrival time forward, and may not move it too far ahead of the clock. Needs the
//! platform's scope.

use sqlx::{PgConnection, postgres::types::PgInterval};

/// A limit: `burst` attempts at once, then one in each `interval`.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// Seconds between two attempts in the long run.
    pub interval_seconds: i64,
    /// Attempts that may come at once.
    pub burst: i64,
}

impl Limit {
    fn interval(self) -> PgInterval {
        seconds(self.interval_seconds)
    }

    /// How far the arrival time may be ahead of the clock.
    fn tolerance(self) -> PgInterval {
        seconds(self.interval_seconds * self.burst)
    }
}

fn seconds(seconds: i64) -> PgInterval {
    PgInterval {
        months: 0,
        days: 0,
        microseconds: seconds * 1_000_000,
    }
}

/// Counts an attempt under `key`. `Err` holds the seconds to wait if there were too many; the attempt is
/// not counted then.
///
/// # Errors
/// If the database fails.
pub async fn attempt(
    connection: &mut PgConnection,
    key: &[u8],
    limit: Limit,
) -> Result<Result<(), f64>, sqlx::Error> {
    let interval = limit.interval();
    let tolerance = limit.tolerance();
    let counted = sqlx::query_scalar!(
        "INSERT INTO login_throttles AS t (throttle_key, arrival_time)
        VALUES ($1, clock_timestamp() + $2::interval)
        ON CONFLICT (throttle_key) DO UPDATE
            SET arrival_time = greatest(t.arrival_time, clock_timestamp()) + $2::interval
            WHERE greatest(t.arrival_time, clock_timestamp()) + $2::interval
                <= clock_timestamp() + $3::interval
        RETURNING throttle_key",
        key,
        interval,
        tolerance,
    )
    .fetch_optional(&mut *connection)
    .await?;
    if counted.is_some() {
        return Ok(Ok(()));
    }
    let wait = sqlx::query_scalar!(
        r#"SELECT extract(epoch FROM arrival_time + $2::interval - $3::interval - clock_timestamp())
            ::float8 AS "wait!"
        FROM login_throttles WHERE throttle_key = $1"#,
        key,
        interval,
        tolerance,
    )
    .fetch_optional(connection)
    .await?;
    Ok(Err(wait.unwrap_or_default().max(1.0)))
}

/// Takes back one attempt under each key, in this order of locks.
///
/// # Errors
/// If the database fails.
pub async fn give_back(
    connection: &mut PgConnection,
    counted: &[(&[u8], Limit)],
) -> Result<(), sqlx::Error> {
    let keys: Vec<Vec<u8>> = counted.iter().map(|(key, _)| key.to_vec()).collect();
    let intervals: Vec<PgInterval> = counted.iter().map(|(_, limit)| limit.interval()).collect();
    sqlx::query!(
        "WITH counted AS MATERIALIZED (
            SELECT t.throttle_key, c.interval
            FROM unnest($1::bytea[], $2::interval[]) WITH ORDINALITY AS c (throttle_key, interval, position)
            JOIN login_throttles t USING (throttle_key)
            ORDER BY position FOR UPDATE OF t
        )
        UPDATE login_throttles t SET arrival_time = arrival_time - counted.interval
        FROM counted WHERE t.throttle_key = counted.throttle_key",
        &keys,
        &intervals,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Forgets the attempts under `key`: the password was right.
///
/// # Errors
/// If the database fails.
pub async fn forget(connection: &mut PgConnection, key: &[u8]) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM login_throttles WHERE throttle_key = $1", key)
        .execute(connection)
        .await?;
    Ok(())
}

/// Deletes up to `limit` idle rows; answers how many there were.
///
/// # Errors
/// If the database fails.
pub async fn purge(connection: &mut PgConnection, limit: i64) -> Result<u64, sqlx::Error> {
    let result = sqlx::query!(
        "DELETE FROM login_throttles WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM login_throttles
            WHERE arrival_time < now() ORDER BY arrival_time LIMIT $1))",
        limit,
    )
    .execute(connection)
    .await?;
    Ok(result.rows_affected())
}

/// Whether a Person logged in from this source before. `source_key` is a hash of email and source.
///
/// # Errors
/// If the database fails.
pub async fn is_known_source(
    connection: &mut PgConnection,
    source_key: &[u8],
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM login_sources WHERE source_key = $1) AS "known!""#,
        source_key
    )
    .fetch_one(connection)
    .await
}

/// Remembers that a Person logged in from this source.
///
/// # Errors
/// If the database fails.
pub async fn remember_source(
    connection: &mut PgConnection,
    source_key: &[u8],
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO login_sources (source_key) VALUES ($1)
        ON CONFLICT (source_key) DO UPDATE SET last_login_time = now()",
        source_key
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes up to `limit` sources without a login for 400 days; answers how many there were.
///
/// # Errors
/// If the database fails.
pub async fn purge_sources(connection: &mut PgConnection, limit: i64) -> Result<u64, sqlx::Error> {
    let result = sqlx::query!(
        "DELETE FROM login_sources WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM login_sources
            WHERE last_login_time < now() - interval '400 days' ORDER BY last_login_time LIMIT $1))",
        limit,
    )
    .execute(connection)
    .await?;
    Ok(result.rows_affected())
}
