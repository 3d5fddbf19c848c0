//! Keys and name hashes that an earlier release derived.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::domain::{
    duplicate::{Fingerprint, Identity, KEYS_VERSION},
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
    keys: (Vec<i64>, Vec<Uuid>),
}

/// Derives keys and name hashes of a batch of accounts anew that have an older [`KEYS_VERSION`], in the order of their
/// ids after `after`; answers the last one, `None` if there is no more. Those that others change at the moment are left
/// out.
///
/// # Errors
/// If the database fails.
pub async fn renew_keys(
    connection: &mut PgConnection,
    organization_id: Uuid,
    after: Uuid,
) -> Result<Option<Uuid>, sqlx::Error> {
    let renewed = derive(connection, organization_id, after).await?;
    if !renewed.account_ids.is_empty() {
        write(connection, organization_id, &renewed).await?;
    }
    Ok(renewed.account_ids.last().copied())
}

/// Locks the accounts that are free, and derives what they are found by.
async fn derive(
    connection: &mut PgConnection,
    organization_id: Uuid,
    after: Uuid,
) -> Result<Renewed, sqlx::Error> {
    let accounts = sqlx::query!(
        r#"SELECT account_id, given_name, family_name, birth_date, phone, duplicate_keys,
            close_time IS NULL AS "is_open!"
        FROM accounts
        WHERE organization_id = $1 AND account_id > $2 AND keys_version < $3
            AND coalesce((SELECT keys_version FROM name_counts WHERE organization_id = $1), 0) < $3
        ORDER BY account_id LIMIT $4
        FOR NO KEY UPDATE SKIP LOCKED"#,
        organization_id,
        after,
        KEYS_VERSION,
        BATCH,
    )
    .fetch_all(connection)
    .await?;
    let mut renewed = Renewed::default();
    for account in accounts {
        let account_id = account.account_id;
        let identity = Identity {
            name: PersonName {
                given: account.given_name,
                family: account.family_name,
            },
            email: None,
            birth_date: account.birth_date,
            phone: account.phone,
        };
        let fingerprint = Fingerprint::new(&identity);
        renewed.account_ids.push(account_id);
        renewed.given_hashes.push(fingerprint.name_hashes.given);
        renewed.family_hashes.push(fingerprint.name_hashes.family);
        let keys = if account.is_open {
            fingerprint.blocking_keys
        } else {
            Vec::new()
        };
        for key in account.duplicate_keys {
            if !keys.contains(&key) {
                renewed.removed.0.push(key);
                renewed.removed.1.push(account_id);
            }
        }
        for key in keys {
            renewed.keys.0.push(key);
            renewed.keys.1.push(account_id);
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
        key AS MATERIALIZED (SELECT * FROM unnest($8::bigint[], $9::uuid[]) AS key (key, account_id)),
        added AS (
            INSERT INTO duplicate_keys (organization_id, key, account_id)
            SELECT $1, key, account_id FROM key
            ON CONFLICT DO NOTHING
        ),
        stored AS (SELECT account_id, array_agg(key) AS keys FROM key GROUP BY account_id)
        UPDATE accounts SET given_name_hash = new.given_name_hash, family_name_hash = new.family_name_hash,
            duplicate_keys = coalesce(stored.keys, '{}'), keys_version = $2
        FROM unnest($3::uuid[], $4::bigint[], $5::bigint[]) AS new (account_id, given_name_hash, family_name_hash)
        LEFT JOIN stored USING (account_id)
        WHERE accounts.organization_id = $1 AND accounts.account_id = new.account_id",
        organization_id,
        KEYS_VERSION,
        &renewed.account_ids,
        &renewed.given_hashes as &[Option<i64>],
        &renewed.family_hashes as &[Option<i64>],
        &renewed.removed.0,
        &renewed.removed.1,
        &renewed.keys.0,
        &renewed.keys.1,
    )
    .execute(connection)
    .await?;
    Ok(())
}
