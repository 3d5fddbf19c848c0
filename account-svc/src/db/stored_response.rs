//! Responses of mutating calls, so that a repeated call gets the same one.

use sqlx::PgConnection;
use usher_runtime::request_key::RequestKey;
use uuid::Uuid;

/// Takes a key for the calling transaction; `false` if it is taken. Waits for a transaction that is taking
/// it at the same moment.
///
/// # Errors
/// If the database fails.
pub async fn claim(
    connection: &mut PgConnection,
    organization_id: Uuid,
    key: &RequestKey,
) -> Result<bool, sqlx::Error> {
    let result = sqlx::query!(
        "INSERT INTO stored_responses (organization_id, request_id, request_hash)
        VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        organization_id,
        key.request_id,
        key.request_hash,
    )
    .execute(connection)
    .await?;
    Ok(result.rows_affected() == 1)
}

/// What is stored under a key.
#[derive(Debug)]
pub struct StoredResponse {
    /// SHA-256 of RPC and request.
    pub request_hash: Vec<u8>,
    /// The encoded response message.
    pub response: Option<Vec<u8>>,
}

/// Reads what is stored under a key.
///
/// # Errors
/// If the database fails.
pub async fn get(
    connection: &mut PgConnection,
    organization_id: Uuid,
    request_id: Uuid,
) -> Result<Option<StoredResponse>, sqlx::Error> {
    sqlx::query_as!(
        StoredResponse,
        "SELECT request_hash, response FROM stored_responses
        WHERE organization_id = $1 AND request_id = $2",
        organization_id,
        request_id,
    )
    .fetch_optional(connection)
    .await
}

/// Stores the response under a key that the transaction took.
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
        "UPDATE stored_responses SET response = $3
        WHERE organization_id = $1 AND request_id = $2",
        organization_id,
        request_id,
        response,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes up to `limit` responses that are older than 24 hours; answers how many there were.
///
/// # Errors
/// If the database fails.
pub async fn purge(connection: &mut PgConnection, limit: i64) -> Result<u64, sqlx::Error> {
    let result = sqlx::query!(
        "DELETE FROM stored_responses WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM stored_responses
            WHERE create_time < now() - interval '24 hours' ORDER BY create_time LIMIT $1))",
        limit,
    )
    .execute(connection)
    .await?;
    Ok(result.rows_affected())
}
