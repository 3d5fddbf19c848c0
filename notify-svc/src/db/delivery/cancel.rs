//! Stopping emails that were not sent yet.

use sqlx::PgConnection;
use uuid::Uuid;

use super::change::{ChangedRow, to_publish};
use crate::domain::{DeliveryChange, DeliveryState, Revocation};

/// Cancels the waiting emails that `revocations` make void. One that is with the sender at this
/// moment is left to it: it looks once more before it hands the email over. One whose answer was lost in an earlier attempt
/// may have arrived, and fails instead.
///
/// # Errors
/// If the database fails.
pub async fn cancel_revoked(
    connection: &mut PgConnection,
    revocations: &[Revocation],
) -> Result<Vec<DeliveryChange>, sqlx::Error> {
    if revocations.is_empty() {
        return Ok(Vec::new());
    }
    let organization_ids: Vec<_> = revocations.iter().map(|row| row.organization_id).collect();
    let invitation_ids: Vec<_> = revocations.iter().map(|row| row.invitation_id).collect();
    let rows = change_deliveries!(
        r#"UPDATE deliveries AS delivery
           SET state = CASE WHEN unknown_count = 0 THEN 'CANCELLED' ELSE 'FAILED' END,
               reason = CASE WHEN unknown_count = 0 THEN 'the invitation was revoked or replaced by a newer one'
                   ELSE 'the relay''s answer was lost, and the invitation was revoked or replaced by a newer one before another attempt' END,
               next_attempt_time = NULL, encapsulated_key = NULL, ciphertext = NULL, revision = revision + 1,
               lease_token = NULL, lease_expire_time = NULL, update_time = now()
           FROM revocations AS revocation
           WHERE revocation.organization_id = delivery.organization_id
             AND revocation.invitation_id = delivery.invitation_id
             AND delivery.send_number <= revocation.send_number
             AND (delivery.organization_id, delivery.invitation_id) IN (
                SELECT organization_id, invitation_id FROM unnest($1::uuid[], $2::uuid[])
                    AS revoked (organization_id, invitation_id))
             AND delivery.next_attempt_time IS NOT NULL
             AND (delivery.lease_expire_time IS NULL
                OR delivery.lease_expire_time < now() AND NOT delivery.handing_over)"#,
        "true",
        &organization_ids,
        &invitation_ids
    )
    .fetch_all(connection)
    .await?;
    Ok(to_publish(rows))
}

/// What decides whether an email can be cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Locked {
    /// Where it stands.
    pub state: DeliveryState,
    /// It waits for an attempt, the first or another.
    pub waits: bool,
    /// The relay may be accepting it.
    pub handing_over: bool,
}

/// Locks an email of an organization: until the end of the transaction nothing happens to it. `None` if there is
/// none.
///
/// # Errors
/// If the database fails.
pub async fn lock(
    connection: &mut PgConnection,
    organization_id: Uuid,
    delivery_id: Uuid,
) -> Result<Option<Locked>, sqlx::Error> {
    sqlx::query_as!(
        Locked,
        r#"SELECT state AS "state: DeliveryState", next_attempt_time IS NOT NULL AS "waits!", handing_over
           FROM deliveries WHERE organization_id = $1 AND delivery_id = $2 FOR UPDATE"#,
        organization_id,
        delivery_id
    )
    .fetch_optional(connection)
    .await
}

/// Cancels an email that waits, and takes it from the sender if that has claimed it. One whose answer was lost in an
/// earlier attempt may have arrived, and fails instead.
///
/// # Errors
/// If the database fails.
pub async fn cancel(
    connection: &mut PgConnection,
    organization_id: Uuid,
    delivery_id: Uuid,
) -> Result<DeliveryChange, sqlx::Error> {
    let row = change_deliveries!(
        r#"UPDATE deliveries AS delivery
           SET state = CASE WHEN unknown_count = 0 THEN 'CANCELLED' ELSE 'FAILED' END,
               reason = CASE WHEN unknown_count = 0 THEN 'staff cancelled the email'
                   ELSE 'the relay''s answer was lost, and staff cancelled the email before another attempt' END,
               next_attempt_time = NULL, encapsulated_key = NULL, ciphertext = NULL, revision = revision + 1,
               lease_token = NULL, lease_expire_time = NULL, update_time = now()
           WHERE organization_id = $1 AND delivery_id = $2"#,
        "true",
        organization_id,
        delivery_id
    )
    .fetch_one(connection)
    .await?;
    Ok(row.into())
}
