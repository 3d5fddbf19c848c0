//! How often names occur in the list of an organization: counted now and then, read by each duplicate check
//! (`account::find_candidates`).

use std::{collections::HashMap, time::Duration};

use sqlx::PgConnection;
use uuid::Uuid;

use crate::domain::duplicate::{KEYS_VERSION, NameFrequency};

/// How a count ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// The names were counted.
    Done,
    /// Accounts have keys of an earlier release, whose names may be counted apart from equal ones.
    KeysOutdated,
    /// Another replica is counting them.
    UnderWay,
    /// They were counted a moment ago, and are not counted again before this time has passed.
    NotBefore(Duration),
}

/// Counts the names of an organization's open accounts, and writes the numbers that changed. Pauses at least a second
/// after each count, and 50 times as long as it took: at most a fiftieth of the time is spent on counting, also
/// with several replicas.
///
/// # Errors
/// If the database fails.
pub async fn count(
    connection: &mut PgConnection,
    organization_id: Uuid,
) -> Result<Count, sqlx::Error> {
    // The longest list takes longer than the statement of a call may.
    sqlx::query("SET LOCAL statement_timeout = '10min'")
        .execute(&mut *connection)
        .await?;
    let claim = sqlx::query!(
        r#"SELECT pg_try_advisory_xact_lock(hashtext('name_counts'), hashtext($1::uuid::text)) AS "is_mine!",
            (SELECT extract(epoch FROM next_count_time - now())::float8 FROM name_counts
            WHERE organization_id = $1) AS seconds_left"#,
        organization_id,
    )
    .fetch_one(&mut *connection)
    .await?;
    if !claim.is_mine {
        return Ok(Count::UnderWay);
    }
    let left = claim.seconds_left.unwrap_or_default();
    if let Ok(left) = Duration::try_from_secs_f64(left)
        && !left.is_zero()
    {
        return Ok(Count::NotBefore(left));
    }
    let (accounts, outdated) = write_numbers(connection, organization_id).await?;
    sqlx::query!(
        "INSERT INTO name_counts (organization_id, accounts, count_time, next_count_time, keys_version)
        VALUES ($1, $2, now(),
            clock_timestamp() + greatest(interval '1 second', 50 * (clock_timestamp() - now())), $3)
        ON CONFLICT (organization_id) DO UPDATE SET accounts = excluded.accounts,
            count_time = excluded.count_time, next_count_time = excluded.next_count_time,
            keys_version = excluded.keys_version",
        organization_id,
        accounts,
        if outdated == 0 { KEYS_VERSION } else { 0 },
    )
    .execute(connection)
    .await?;
    Ok(if outdated == 0 {
        Count::Done
    } else {
        Count::KeysOutdated
    })
}

/// Answers the number of open accounts, and how many of them have keys of an earlier release.
async fn write_numbers(
    connection: &mut PgConnection,
    organization_id: Uuid,
) -> Result<(i64, i64), sqlx::Error> {
    let total = sqlx::query!(
        r#"WITH grouped AS MATERIALIZED (
            SELECT given_name_hash, family_name_hash, count(*) AS accounts,
                count(*) FILTER (WHERE keys_version < $2) AS outdated,
                GROUPING(given_name_hash, family_name_hash) = 3 AS is_total
            FROM accounts
            WHERE organization_id = $1 AND close_time IS NULL
            GROUP BY GROUPING SETS ((given_name_hash), (family_name_hash), ())
        ),
        counted AS (
            SELECT coalesce(given_name_hash, family_name_hash) AS name_hash,
                coalesce(sum(accounts) FILTER (WHERE given_name_hash IS NOT NULL), 0)::bigint AS as_given_name,
                coalesce(sum(accounts) FILTER (WHERE family_name_hash IS NOT NULL), 0)::bigint AS as_family_name
            FROM grouped
            WHERE coalesce(given_name_hash, family_name_hash) IS NOT NULL
            GROUP BY 1
        ),
        changed AS MATERIALIZED (
            SELECT name_hash, counted.as_given_name, counted.as_family_name
            FROM counted
            FULL JOIN (SELECT * FROM name_frequencies WHERE organization_id = $1) AS before USING (name_hash)
            WHERE (counted.as_given_name, counted.as_family_name)
                IS DISTINCT FROM (before.as_given_name, before.as_family_name)
        ),
        gone AS (
            DELETE FROM name_frequencies USING changed
            WHERE organization_id = $1 AND name_frequencies.name_hash = changed.name_hash
                AND changed.as_given_name IS NULL
        ),
        written AS (
            INSERT INTO name_frequencies (organization_id, name_hash, as_given_name, as_family_name)
            SELECT $1, name_hash, as_given_name, as_family_name FROM changed WHERE as_given_name IS NOT NULL
            ON CONFLICT (organization_id, name_hash) DO UPDATE
                SET as_given_name = excluded.as_given_name, as_family_name = excluded.as_family_name
        )
        SELECT accounts AS "accounts!", outdated AS "outdated!" FROM grouped WHERE is_total"#,
        organization_id,
        KEYS_VERSION,
    )
    .fetch_one(connection)
    .await?;
    Ok((total.accounts, total.outdated))
}

/// Organizations with accounts that are newer than their last count, were made while it ran, or may have keys of an
/// earlier release: up to `limit`.
///
/// # Errors
/// If the database fails.
pub async fn outdated(connection: &mut PgConnection, limit: i64) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT o.organization_id FROM organizations o
        LEFT JOIN name_counts c ON c.organization_id = o.organization_id
        CROSS JOIN LATERAL (
            SELECT create_time FROM accounts a
            WHERE a.organization_id = o.organization_id
            ORDER BY account_id DESC LIMIT 1
        ) AS newest
        WHERE c.count_time IS NULL OR newest.create_time > c.count_time - interval '1 minute' OR c.keys_version < $2
        LIMIT $1",
        limit,
        KEYS_VERSION,
    )
    .fetch_all(connection)
    .await
}

/// Reads how often some names occur, by their hashes; those that do not are left out.
///
/// # Errors
/// If the database fails.
pub async fn read(
    connection: &mut PgConnection,
    organization_id: Uuid,
    name_hashes: &[i64],
) -> Result<HashMap<i64, NameFrequency>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT name_hash, as_given_name, as_family_name FROM name_frequencies
        WHERE organization_id = $1 AND name_hash = ANY ($2)",
        organization_id,
        name_hashes,
    )
    .fetch_all(connection)
    .await?;
    let frequencies = rows.into_iter().map(|row| {
        let frequency = NameFrequency {
            as_given_name: row.as_given_name,
            as_family_name: row.as_family_name,
        };
        (row.name_hash, frequency)
    });
    Ok(frequencies.collect())
}
