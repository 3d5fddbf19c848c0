//! Responses of mutating calls, so that a repeated call gets the same one.

use prost::Message;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{error::CommonError, request_key::RequestKey};

/// The response that is stored under a call's request id, if there is one: for a mutation that has something to
/// do before its transaction begins. The organization is nil for calls that belong to none.
///
/// # Errors
/// If the request id was used for another request, or the database fails.
pub async fn get<R: Message + Default>(
    connection: &mut PgConnection,
    organization_id: Uuid,
    key: &RequestKey,
) -> Result<Option<R>, CommonError> {
    let stored = sqlx::query!(
        "SELECT request_hash, response FROM stored_responses
        WHERE organization_id = $1 AND request_id = $2",
        organization_id,
        key.request_id,
    )
    .fetch_optional(connection)
    .await?;
    let Some(stored) = stored else {
        return Ok(None);
    };
    if stored.request_hash != key.request_hash {
        return Err(CommonError::RequestIdReused(key.request_id));
    }
    R::decode(stored.response.as_slice())
        .map(Some)
        // The error may quote the response.
        .map_err(|_| CommonError::Internal("a stored response cannot be decoded".to_owned()))
}

/// Deletes up to `limit` responses that are older than 24 hours; answers how many there were.
///
/// # Errors
/// If the database fails.
pub(super) async fn purge(connection: &mut PgConnection, limit: i64) -> Result<u64, sqlx::Error> {
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
