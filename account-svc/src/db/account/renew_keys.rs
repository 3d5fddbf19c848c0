//! Keys and name hashes that an earlier release derived.

use std::collections::{HashMap, HashSet};

use sqlx::PgConnection;
use uuid::Uuid;

use crate::domain::{
    duplicate::{self, Identity, KEYS_VERSION},
    name::PersonName,
};

/// Accounts of a batch: they are locked for less than a second.
const BATCH: i64 = 2_000;

/// What is to be written for a batch.
#[derive(Default)]
struct Renewed {
    account_ids: Vec<Uuid>,
    given_hashes: Vec<Option<i64>>,
    family_hashes: Vec<Option<i64>>,
    /// Keys with their accounts.
    removed: (Vec<i64>, Vec<Uuid>),
    added: (Vec<i64>, Vec<Uuid>),
}

/// Derives keys and name hashes of a batch of accounts anew that have an older [`KEYS_VERSION`]; answers how many of
/// them it found. Those that others change at the moment are left for later.
///
/// # Errors
/// If the database fails.
pub async fn renew_keys(
    connection: &mut PgConnection,
    organization_id: Uuid,
) -> Result<usize, sqlx::Error> {
    let outdated = sqlx::query_scalar!(
        "SELECT account_id FROM accounts
        WHERE organization_id = $1 AND keys_version < $2
            AND coalesce((SELECT keys_version FROM name_counts WHERE organization_id = $1), 0) < $2
        ORDER BY account_id LIMIT $3",
        organization_id,
        KEYS_VERSION,
        BATCH,
    )
    .fetch_all(&mut *connection)
    .await?;
    if !outdated.is_empty() {
        let stored = stored_keys(connection, organization_id, &outdated).await?;
        let renewed = derive(connection, organization_id, &outdated, stored).await?;
        write(connection, organization_id, &renewed).await?;
    }
    Ok(outdated.len())
}

/// The keys that are stored for accounts. No index holds them by account, so all of the organization are read, before
/// anything is locked.
async fn stored_keys(
    connection: &mut PgConnection,
    organization_id: Uuid,
    account_ids: &[Uuid],
) -> Result<HashMap<Uuid, HashSet<i64>>, sqlx::Error> {
    // In the longest list that takes longer than the statement of a call may. And PostgreSQL, which does not know how
    // many keys an account has, must not read all of them for each.
    sqlx::raw_sql("SET LOCAL statement_timeout = '10min'; SET LOCAL enable_nestloop = off")
        .execute(&mut *connection)
        .await?;
    let rows = sqlx::query!(
        "SELECT key, account_id FROM duplicate_keys
        JOIN unnest($2::uuid[]) AS outdated (account_id) USING (account_id)
        WHERE organization_id = $1",
        organization_id,
        account_ids,
    )
    .fetch_all(&mut *connection)
    .await?;
    sqlx::raw_sql("SET LOCAL enable_nestloop = on")
        .execute(connection)
        .await?;
    let mut stored: HashMap<_, HashSet<_>> = HashMap::new();
    for row in rows {
        stored.entry(row.account_id).or_default().insert(row.key);
    }
    Ok(stored)
}

/// Locks the accounts that are free, and derives what they are found by.
async fn derive(
    connection: &mut PgConnection,
    organization_id: Uuid,
    account_ids: &[Uuid],
    mut stored: HashMap<Uuid, HashSet<i64>>,
) -> Result<Renewed, sqlx::Error> {
    let accounts = sqlx::query!(
        r#"SELECT account_id, given_name, family_name, birth_date, phone, close_time IS NULL AS "is_open!"
        FROM accounts WHERE organization_id = $1 AND account_id = ANY ($2)
        ORDER BY account_id FOR NO KEY UPDATE SKIP LOCKED"#,
        organization_id,
        account_ids,
    )
    .fetch_all(connection)
    .await?;
    let mut renewed = Renewed::default();
    for account in accounts {
        let identity = Identity {
            name: PersonName {
                given: account.given_name,
                family: account.family_name,
            },
            email: None,
            birth_date: account.birth_date,
            phone: account.phone,
        };
        let names = duplicate::name_hashes(&identity.name);
        renewed.account_ids.push(account.account_id);
        renewed.given_hashes.push(names.given);
        renewed.family_hashes.push(names.family);
        let mut unneeded = stored.remove(&account.account_id).unwrap_or_default();
        if account.is_open {
            for key in duplicate::blocking_keys(&identity) {
                if !unneeded.remove(&key) {
                    renewed.added.0.push(key);
                    renewed.added.1.push(account.account_id);
                }
            }
        }
        for key in unneeded {
            renewed.removed.0.push(key);
            renewed.removed.1.push(account.account_id);
        }
    }
    Ok(renewed)
}

async fn write(
    connection: &mut PgConnection,
    organization_id: Uuid,
    renewed: &Renewed,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "WITH removed AS (
            DELETE FROM duplicate_keys k USING unnest($6::bigint[], $7::uuid[]) AS old (key, account_id)
            WHERE k.organization_id = $1 AND k.key = old.key AND k.account_id = old.account_id
        ),
        added AS (
            INSERT INTO duplicate_keys (organization_id, key, account_id)
            SELECT $1, key, account_id FROM unnest($8::bigint[], $9::uuid[]) AS new (key, account_id)
            ON CONFLICT DO NOTHING
        )
        UPDATE accounts SET given_name_hash = new.given_name_hash, family_name_hash = new.family_name_hash,
            keys_version = $2
        FROM unnest($3::uuid[], $4::bigint[], $5::bigint[]) AS new (account_id, given_name_hash, family_name_hash)
        WHERE accounts.organization_id = $1 AND accounts.account_id = new.account_id",
        organization_id,
        KEYS_VERSION,
        &renewed.account_ids,
        &renewed.given_hashes as &[Option<i64>],
        &renewed.family_hashes as &[Option<i64>],
        &renewed.removed.0,
        &renewed.removed.1,
        &renewed.added.0,
        &renewed.added.1,
    )
    .execute(connection)
    .await?;
    Ok(())
}
