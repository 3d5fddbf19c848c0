//! Invitations that are void.

use sqlx::PgConnection;
use usher_runtime::trace_context::TraceContext;

use crate::{domain::DeliveryState, events::DeliveryChange, intake::Revocation};

/// Remembers revocations: the request that one of them revokes may still be under way.
///
/// # Errors
/// If the database fails.
pub async fn revocations_insert(
    connection: &mut PgConnection,
    revocations: &[Revocation],
) -> Result<(), sqlx::Error> {
    let mut sorted = revocations.to_vec();
    sorted
        .sort_unstable_by_key(|revocation| (revocation.organization_id, revocation.invitation_id));
    let organization_ids: Vec<_> = sorted.iter().map(|row| row.organization_id).collect();
    let invitation_ids: Vec<_> = sorted.iter().map(|row| row.invitation_id).collect();
    let send_numbers: Vec<_> = sorted.iter().map(|row| row.send_number).collect();
    sqlx::query!(
        "INSERT INTO revocations (organization_id, invitation_id, send_number)
         SELECT organization_id, invitation_id, max(send_number)
         FROM unnest($1::uuid[], $2::uuid[], $3::integer[])
            AS revoked (organization_id, invitation_id, send_number)
         GROUP BY organization_id, invitation_id
         ORDER BY organization_id, invitation_id
         ON CONFLICT (organization_id, invitation_id) DO UPDATE
            SET send_number = greatest(revocations.send_number, excluded.send_number)",
        &organization_ids,
        &invitation_ids,
        &send_numbers
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Cancels the waiting emails that `revocations` make void. One that is with the sender at this
/// moment is left to it: it looks once more before it hands the email over.
///
/// # Errors
/// If the database fails.
pub async fn deliveries_cancel_revoked(
    connection: &mut PgConnection,
    revocations: &[Revocation],
) -> Result<Vec<DeliveryChange>, sqlx::Error> {
    let organization_ids: Vec<_> = revocations.iter().map(|row| row.organization_id).collect();
    let invitation_ids: Vec<_> = revocations.iter().map(|row| row.invitation_id).collect();
    let rows = sqlx::query!(
        r#"UPDATE deliveries AS delivery
           SET state = 'CANCELLED', reason = 'the invitation was revoked', next_attempt_time = NULL,
               encapsulated_key = NULL, ciphertext = NULL, revision = revision + 1,
               lease_token = NULL, lease_expire_time = NULL, update_time = now()
           FROM revocations AS revocation
           WHERE revocation.organization_id = delivery.organization_id
             AND revocation.invitation_id = delivery.invitation_id
             AND delivery.send_number <= revocation.send_number
             AND (delivery.organization_id, delivery.invitation_id) IN (
                SELECT organization_id, invitation_id FROM unnest($1::uuid[], $2::uuid[])
                    AS revoked (organization_id, invitation_id))
             AND delivery.state IN ('QUEUED', 'THROTTLED')
             AND (delivery.lease_expire_time IS NULL
                OR delivery.lease_expire_time < now() AND NOT delivery.handing_over)
           RETURNING delivery.organization_id, delivery.delivery_id, delivery.invitation_id,
               delivery.send_number, delivery.revision, delivery.reason, delivery.trace_context,
               delivery.update_time"#,
        &organization_ids,
        &invitation_ids
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| DeliveryChange {
            organization_id: row.organization_id,
            delivery_id: row.delivery_id,
            invitation_id: row.invitation_id,
            send_number: row.send_number,
            state: DeliveryState::Cancelled,
            revision: row.revision,
            throttled_until: None,
            smtp_status: None,
            reason: row.reason,
            change_time: row.update_time,
            trace_context: TraceContext(row.trace_context),
        })
        .collect())
}
