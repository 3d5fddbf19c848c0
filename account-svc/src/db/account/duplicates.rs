//! Accounts that may be of the same client.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::domain::{duplicate::Identity, name::PersonName};

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

/// Accounts whose name is equal or sounds alike: the oldest `limit` of each. The same ones every time, for callers
/// acknowledge exactly those that they were shown.
///
/// # Errors
/// If the database fails.
pub async fn find_namesakes(
    connection: &mut PgConnection,
    organization_id: Uuid,
    name: &PersonName,
    limit: i64,
) -> Result<Vec<(Uuid, Identity)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT account_id AS "account_id!", given_name AS "given_name!",
            family_name AS "family_name!", email_canonical, birth_date, phone
        FROM (
            (SELECT account_id, given_name, family_name, email_canonical, birth_date, phone
            FROM accounts
            WHERE organization_id = $1 AND name_key = $2 AND close_time IS NULL
            ORDER BY account_id LIMIT $4)
            UNION
            (SELECT account_id, given_name, family_name, email_canonical, birth_date, phone
            FROM accounts
            WHERE organization_id = $1 AND name_sound = $3 AND close_time IS NULL
            ORDER BY account_id LIMIT $4)
        ) AS namesake"#,
        organization_id,
        name.key(),
        name.sound(),
        limit,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let identity = Identity {
                name: PersonName {
                    given: row.given_name,
                    family: row.family_name,
                },
                email: row.email_canonical,
                birth_date: row.birth_date,
                phone: row.phone,
            };
            (row.account_id, identity)
        })
        .collect())
}
