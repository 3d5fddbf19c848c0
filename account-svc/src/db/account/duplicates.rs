//! Accounts that may be of the same client, and the keys that they are found by.

use sqlx::PgConnection;
use uuid::Uuid;

use super::super::person::email_hash;
use crate::domain::{
    duplicate::{
        ENOUGH_CANDIDATES, Fingerprint, Frequencies, Identity, MAX_POSTINGS, NameFrequency,
    },
    name::PersonName,
};

/// The account that has this email in the organization.
///
/// # Errors
/// If the database fails.
pub async fn find_by_email(
    connection: &mut PgConnection,
    organization_id: Uuid,
    canonical_email: &str,
) -> Result<Option<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT account_id FROM accounts
        WHERE organization_id = $1 AND email_canonical = $2 AND close_time IS NULL",
        organization_id,
        canonical_email,
    )
    .fetch_optional(connection)
    .await
}

/// Locks that let one transaction at a time check and write a name of an organization: whoever takes them second
/// waits until the first has ended, and a statement after that sees what the first wrote. Names that are equal
/// after normalization share an exact key, and so a lock.
///
/// A transaction takes them in this order, after the row of the account that it changes and before it writes
/// anything that another could wait for: so nobody waits for longer than others work.
#[must_use]
pub fn name_locks(organization_id: Uuid, name: &Fingerprint) -> Vec<i64> {
    let keys = name.exact_keys.iter();
    let mut locks: Vec<i64> = keys.map(|key| key ^ half(organization_id)).collect();
    locks.sort_unstable();
    locks
}

/// The random half of a UUID: locks are numbers, and two organizations should not wait for each other.
const fn half(id: Uuid) -> i64 {
    id.as_u64_pair().1.cast_signed()
}

/// Where an email is in use.
#[derive(Debug, Clone, Copy)]
pub struct EmailUse {
    /// The open account of the organization that has it.
    pub account_id: Option<Uuid>,
    /// Whether a Person, anywhere on the platform, has proved it.
    pub is_proven: bool,
}

/// Reads where an email is in use.
///
/// # Errors
/// If the database fails.
pub async fn find_email(
    connection: &mut PgConnection,
    organization_id: Uuid,
    canonical_email: &str,
) -> Result<EmailUse, sqlx::Error> {
    sqlx::query_as!(
        EmailUse,
        r#"SELECT (SELECT account_id FROM accounts
                WHERE organization_id = $1 AND email_canonical = $2 AND close_time IS NULL) AS account_id,
            EXISTS (SELECT FROM proven_emails WHERE email_hash = $3) AS "is_proven!""#,
        organization_id,
        canonical_email,
        email_hash(canonical_email),
    )
    .fetch_one(connection)
    .await
}

/// What the duplicate check of an identity reads.
#[derive(Debug)]
pub struct CheckData {
    /// Where its email is in use.
    pub email: EmailUse,
    /// Accounts that share a key with the identity, oldest first.
    pub candidates: Vec<(Uuid, Identity)>,
    /// How often its names occur in the organization.
    pub frequencies: Frequencies,
}

/// Reads what the duplicate check of an entry judges, in one statement: whether its email is taken, and the open
/// accounts that share a key with it, for about [`ENOUGH_CANDIDATES`], rarest keys first. A key of more than
/// [`MAX_POSTINGS`] accounts says little and is left out, unless there is no other. Of the accounts that
/// share a key of equal names, the newest are read in any case, as many as of one key. The same ones every time, for
/// callers acknowledge those that they were shown. `tests/examples/duplicates/index.rs` chooses in the same way, and a test compares the two.
///
/// # Errors
/// If the database fails.
pub async fn find_candidates(
    connection: &mut PgConnection,
    organization_id: Uuid,
    fingerprint: &Fingerprint,
    canonical_email: Option<&str>,
) -> Result<CheckData, sqlx::Error> {
    let names = fingerprint.name_hashes;
    // Nobody has an empty one. For null, PostgreSQL may start parallel workers, only to find that nothing equals it.
    let email = canonical_email.unwrap_or_default();
    let rows = sqlx::query!(
        r#"WITH posting AS MATERIALIZED (
            SELECT wanted.key, wanted.key = ANY ($3) AS is_exact, ARRAY(
                SELECT account_id FROM duplicate_keys
                WHERE organization_id = $1 AND key = wanted.key
                ORDER BY account_id DESC LIMIT $4::bigint + 1
            ) AS account_ids
            FROM unnest($2::bigint[]) AS wanted (key)
        ),
        -- Not in the step before, which would read each key twice.
        sized AS (SELECT key, is_exact, account_ids, cardinality(account_ids) AS size FROM posting),
        used AS (
            SELECT account_ids, is_exact, sum(size) FILTER (WHERE NOT is_exact) OVER (
                ORDER BY is_exact DESC, size, key ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ) AS read_before
            FROM sized
            WHERE is_exact OR size <= $4
                OR NOT EXISTS (SELECT FROM sized WHERE size > 0 AND (is_exact OR size <= $4))
        )
        SELECT (SELECT account_id FROM accounts
                WHERE organization_id = $1 AND email_canonical = $8 AND close_time IS NULL) AS email_account_id,
            EXISTS (SELECT FROM proven_emails WHERE email_hash = $9) AS "email_is_proven!",
            coalesce(count.accounts, 0) AS "accounts!",
            coalesce(given.as_given_name, 0) AS "given_as_given!",
            coalesce(given.as_family_name, 0) AS "given_as_family!",
            coalesce(family.as_family_name, 0) AS "family_as_family!",
            coalesce(family.as_given_name, 0) AS "family_as_given!",
            account.account_id AS "account_id?", account.given_name AS "given_name?",
            account.family_name AS "family_name?", account.email_canonical, account.birth_date, account.phone
        FROM (SELECT $1::uuid AS organization_id) AS organization
        LEFT JOIN name_counts AS count ON count.organization_id = $1
        LEFT JOIN name_frequencies AS given ON given.organization_id = $1 AND given.name_hash = $6
        LEFT JOIN name_frequencies AS family ON family.organization_id = $1 AND family.name_hash = $7
        LEFT JOIN accounts AS account ON account.organization_id = $1 AND account.account_id = ANY (ARRAY(
            (SELECT DISTINCT id FROM used, unnest(account_ids) AS id WHERE is_exact ORDER BY id DESC LIMIT $4::bigint + 1)
            UNION ALL
            SELECT unnest(account_ids) FROM used WHERE NOT is_exact AND coalesce(read_before, 0) < $5))
            AND account.close_time IS NULL
        ORDER BY account.account_id"#,
        organization_id,
        &fingerprint.blocking_keys,
        &fingerprint.exact_keys,
        limit(MAX_POSTINGS),
        limit(ENOUGH_CANDIDATES),
        names.given,
        names.family,
        email,
        email_hash(email),
    )
    .fetch_all(connection)
    .await?;
    let frequencies = rows.first().map_or_else(Frequencies::default, |row| {
        let given = NameFrequency {
            as_given_name: row.given_as_given,
            as_family_name: row.given_as_family,
        };
        let family = NameFrequency {
            as_given_name: row.family_as_given,
            as_family_name: row.family_as_family,
        };
        let given = names.given.map(|hash| (hash, given));
        let family = names.family.map(|hash| (hash, family));
        Frequencies {
            accounts: row.accounts,
            names: given.into_iter().chain(family).collect(),
        }
    });
    let email = EmailUse {
        account_id: rows.first().and_then(|row| row.email_account_id),
        is_proven: rows.first().is_some_and(|row| row.email_is_proven),
    };
    let candidates = rows.into_iter().filter_map(|row| {
        let identity = Identity {
            name: PersonName {
                given: row.given_name?,
                family: row.family_name?,
            },
            email: row.email_canonical,
            birth_date: row.birth_date,
            phone: row.phone,
        };
        Some((row.account_id?, identity))
    });
    Ok(CheckData {
        email,
        candidates: candidates.collect(),
        frequencies,
    })
}

/// A number of rows, as SQL takes it.
fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}
