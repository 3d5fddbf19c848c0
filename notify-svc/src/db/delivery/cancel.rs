//! Stopping emails that were not sent yet.

use sqlx::PgConnection;
use uuid::Uuid;

use super::change::ChangedRow;
use crate::domain::{DeliveryChange, DeliveryState, Revocation};

/// Cancels the waiting emails that `revocations` make void. One that is with the sender at this
/// moment is left to it. One whose answer was lost in an earlier attempt may have arrived, and fails instead.
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
        r#"WITH revoked AS (
                SELECT delivery.organization_id, delivery.delivery_id
                FROM unnest($1::uuid[], $2::uuid[]) AS event (organization_id, invitation_id)
                JOIN revocations AS revocation USING (organization_id, invitation_id)
                JOIN deliveries AS delivery USING (organization_id, invitation_id)
                WHERE delivery.send_number <= revocation.send_number
           ), waiting AS (
                DELETE FROM delivery_queue AS queue USING revoked
                WHERE queue.organization_id = revoked.organization_id AND queue.delivery_id = revoked.delivery_id
                  AND queue.lease_expire_time IS NULL
                RETURNING queue.organization_id, queue.delivery_id
           )
           UPDATE deliveries AS delivery
           SET state = CASE WHEN unknown_count = 0 THEN 'CANCELLED' ELSE 'FAILED' END,
               reason = CASE WHEN unknown_count = 0 THEN 'the invitation was revoked or replaced by a newer one'
                   ELSE 'the relay''s answer was lost, and the invitation was revoked or replaced by a newer one before another attempt' END,
               encapsulated_key = NULL, ciphertext = NULL, revision = revision + 1, change_xid = pg_current_xact_id(), update_time = now()
           FROM waiting
           WHERE delivery.organization_id = waiting.organization_id AND delivery.delivery_id = waiting.delivery_id"#,
        "NULL::timestamptz",
        &organization_ids,
        &invitation_ids
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(DeliveryChange::from).collect())
}

/// An email that is still to be sent, locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// The relay may be accepting it.
    pub handing_over: bool,
}

/// Locks an email of an organization that is still to be sent: until the end of the transaction nothing happens to it.
/// `None` if there is none, or if it has ended.
///
/// # Errors
/// If the database fails.
pub async fn lock(
    connection: &mut PgConnection,
    organization_id: Uuid,
    delivery_id: Uuid,
) -> Result<Option<Waiting>, sqlx::Error> {
    sqlx::query_as!(
        Waiting,
        r#"SELECT lease_expire_time IS NOT NULL AS "handing_over!"
           FROM delivery_queue WHERE organization_id = $1 AND delivery_id = $2 FOR UPDATE"#,
        organization_id,
        delivery_id
    )
    .fetch_optional(connection)
    .await
}

/// Cancels an email that waits and is locked. One whose answer was lost in an earlier attempt may have arrived, and fails
/// instead.
///
/// # Errors
/// If the database fails.
pub async fn cancel(
    connection: &mut PgConnection,
    organization_id: Uuid,
    delivery_id: Uuid,
) -> Result<DeliveryChange, sqlx::Error> {
    let row = change_deliveries!(
        r#"WITH waiting AS (
                DELETE FROM delivery_queue WHERE organization_id = $1 AND delivery_id = $2
           )
           UPDATE deliveries AS delivery
           SET state = CASE WHEN unknown_count = 0 THEN 'CANCELLED' ELSE 'FAILED' END,
               reason = CASE WHEN unknown_count = 0 THEN 'staff cancelled the email'
                   ELSE 'the relay''s answer was lost, and staff cancelled the email before another attempt' END,
               encapsulated_key = NULL, ciphertext = NULL, revision = revision + 1, change_xid = pg_current_xact_id(), update_time = now()
           WHERE organization_id = $1 AND delivery_id = $2"#,
        "NULL::timestamptz",
        organization_id,
        delivery_id
    )
    .fetch_one(connection)
    .await?;
    Ok(row.into())
}
