//! Answers of mutating calls, kept so that a repeated call gets the same one.

use sqlx::PgConnection;
use uuid::Uuid;

/// Takes a key for the calling transaction; `false` if it is taken. Waits for a transaction that is taking
/// it at the same moment.
///
/// # Errors
/// If the database fails.
pub async fn claim(
    connection: &mut PgConnection,
    organization_id: Uuid,
    request_id: Uuid,
    request_hash: &[u8],
) -> Result<bool, sqlx::Error> {
    let result = sqlx::query!(
        "INSERT INTO idempotency_keys (organization_id, request_id, request_hash)
        VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        organization_id,
        request_id,
        request_hash,
    )
    .execute(connection)
    .await?;
    Ok(result.rows_affected() == 1)
}

/// What is kept under a key: the hash of the request, and its answer.
#[derive(Debug)]
pub struct Kept {
    /// SHA-256 of method and request.
    pub request_hash: Vec<u8>,
    /// The answer.
    pub response: Option<Vec<u8>>,
}

/// Reads what is kept under a key.
///
/// # Errors
/// If the database fails.
pub async fn get(
    connection: &mut PgConnection,
    organization_id: Uuid,
    request_id: Uuid,
) -> Result<Option<Kept>, sqlx::Error> {
    sqlx::query_as!(
        Kept,
        "SELECT request_hash, response FROM idempotency_keys
        WHERE organization_id = $1 AND request_id = $2",
        organization_id,
        request_id,
    )
    .fetch_optional(connection)
    .await
}

/// Keeps the answer under a key that the transaction took.
///
/// # Errors
/// If the database fails.
pub async fn save(
    connection: &mut PgConnection,
    organization_id: Uuid,
    request_id: Uuid,
    response: &[u8],
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE idempotency_keys SET response = $3
        WHERE organization_id = $1 AND request_id = $2",
        organization_id,
        request_id,
        response,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes up to `limit` keys that are older than 24 hours; answers how many there were.
///
/// # Errors
/// If the database fails.
pub async fn purge(connection: &mut PgConnection, limit: i64) -> Result<u64, sqlx::Error> {
    let result = sqlx::query!(
        "DELETE FROM idempotency_keys WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM idempotency_keys
            WHERE create_time < now() - interval '24 hours' ORDER BY create_time LIMIT $1))",
        limit,
    )
    .execute(connection)
    .await?;
    Ok(result.rows_affected())
}
