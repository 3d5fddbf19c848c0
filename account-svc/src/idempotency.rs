//! Mutating calls that are safe to repeat (AIP-155): the same `request_id` with the same request gets the
//! same answer, with another request it is refused. Answers are kept for 24 hours; errors are not kept.

use aws_lc_rs::digest;
use serde::{Serialize, de::DeserializeOwned};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{db, error::Error};

/// The `request_id` of a call, with the hash of what it asked for.
#[derive(Debug, Clone)]
pub struct RequestKey {
    request_id: Uuid,
    hash: Vec<u8>,
}

impl RequestKey {
    /// A key for `request_id` and the encoded request, from which passwords were removed: a fast hash of a
    /// password must not be kept.
    #[must_use]
    pub fn new(request_id: Uuid, method: &str, request: &[u8]) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(method.as_bytes());
        context.update(request);
        Self {
            request_id,
            hash: context.finish().as_ref().to_vec(),
        }
    }
}

/// Takes the key for this transaction, or answers what an earlier call with it answered. Calls with the
/// same key wait for each other.
///
/// # Errors
/// If the key was used for another request.
pub async fn replay<T: DeserializeOwned>(
    connection: &mut PgConnection,
    organization_id: Uuid,
    key: Option<&RequestKey>,
) -> Result<Option<T>, Error> {
    let Some(key) = key else { return Ok(None) };
    let claimed =
        db::idempotency::claim(connection, organization_id, key.request_id, &key.hash).await?;
    if claimed {
        return Ok(None);
    }
    let kept = db::idempotency::get(connection, organization_id, key.request_id)
        .await?
        // Purged between the two statements.
        .ok_or(Error::ConcurrentUpdate)?;
    if kept.request_hash != key.hash {
        return Err(Error::RequestIdReused(key.request_id));
    }
    let response = kept.response.ok_or(Error::ConcurrentUpdate)?;
    serde_json::from_slice(&response)
        .map(Some)
        // The error may quote the answer.
        .map_err(|_| Error::Internal("a kept answer cannot be read".to_owned()))
}

/// Keeps the answer for calls that repeat the key.
///
/// # Errors
/// If the database fails.
pub async fn keep<T: Serialize>(
    connection: &mut PgConnection,
    organization_id: Uuid,
    key: Option<&RequestKey>,
    answer: &T,
) -> Result<(), Error> {
    let Some(key) = key else { return Ok(()) };
    let answer = serde_json::to_vec(answer)
        .map_err(|_| Error::Internal("an answer cannot be kept".to_owned()))?;
    db::idempotency::save(connection, organization_id, key.request_id, &answer).await?;
    Ok(())
}
