//! When waiting emails go, as their recipients' slots say (`recipient_slot`).

use std::collections::{BTreeMap, HashSet};

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::change::{ChangedRow, to_publish};
use crate::domain::{DeliveryChange, DeliveryState};

/// Lets new emails wait for their slots.
///
/// # Errors
/// If the database fails.
pub async fn throttle(
    connection: &mut PgConnection,
    slots: &[(Uuid, OffsetDateTime)],
) -> Result<(), sqlx::Error> {
    if slots.is_empty() {
        return Ok(());
    }
    let (delivery_ids, times): (Vec<_>, Vec<_>) = slots.iter().copied().unzip();
    sqlx::query!(
        "UPDATE deliveries SET state = 'THROTTLED', next_attempt_time = slot.time
         FROM unnest($1::uuid[], $2::timestamptz[]) AS slot (delivery_id, time)
         WHERE deliveries.delivery_id = slot.delivery_id",
        &delivery_ids,
        &times
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Ends new emails that would have to wait for longer than their links work.
///
/// # Errors
/// If the database fails.
pub async fn refuse(
    connection: &mut PgConnection,
    delivery_ids: &[Uuid],
    reason: &str,
) -> Result<(), sqlx::Error> {
    if delivery_ids.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE deliveries SET state = 'FAILED', reason = $2, next_attempt_time = NULL,
            encapsulated_key = NULL, ciphertext = NULL
         WHERE delivery_id = ANY ($1)",
        delivery_ids,
        reason
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Locks those of the emails that wait and that nobody has at this moment. Waits for nobody.
///
/// # Errors
/// If the database fails.
pub async fn lock_waiting(
    connection: &mut PgConnection,
    delivery_ids: &[Uuid],
) -> Result<HashSet<Uuid>, sqlx::Error> {
    if delivery_ids.is_empty() {
        return Ok(HashSet::new());
    }
    let locked = sqlx::query_scalar!(
        "SELECT delivery_id FROM deliveries
         WHERE delivery_id = ANY ($1) AND next_attempt_time IS NOT NULL AND lease_token IS NULL
         FOR UPDATE SKIP LOCKED",
        delivery_ids
    )
    .fetch_all(connection)
    .await?;
    Ok(locked.into_iter().collect())
}

/// Gives emails that are locked another time, and answers the changes to publish. An email whose link expires before
/// fails, for `too_late`, or for `lost` if it may have arrived.
///
/// # Errors
/// If the database fails.
pub async fn reschedule(
    connection: &mut PgConnection,
    times: &BTreeMap<Uuid, OffsetDateTime>,
    too_late: &str,
    lost: &str,
) -> Result<Vec<DeliveryChange>, sqlx::Error> {
    if times.is_empty() {
        return Ok(Vec::new());
    }
    let (delivery_ids, times): (Vec<_>, Vec<_>) = times.iter().unzip();
    let rows = change_deliveries!(
        r#"UPDATE deliveries AS delivery
           SET next_attempt_time = CASE WHEN slot.time < expire_time THEN slot.time END,
               encapsulated_key = CASE WHEN slot.time < expire_time THEN encapsulated_key END,
               ciphertext = CASE WHEN slot.time < expire_time THEN ciphertext END,
               state = CASE WHEN slot.time >= expire_time THEN 'FAILED'
                   WHEN delivery.state = 'UNKNOWN' THEN 'UNKNOWN'
                   WHEN slot.time > now() THEN 'THROTTLED'
                   ELSE 'QUEUED' END,
               reason = CASE WHEN slot.time < expire_time THEN reason
                   WHEN unknown_count = 0 THEN $3 ELSE $4 END,
               revision = revision + 1, update_time = now()
           FROM unnest($1::uuid[], $2::timestamptz[]) AS slot (delivery_id, time)
           WHERE delivery.delivery_id = slot.delivery_id"#,
        "true",
        &delivery_ids,
        &times,
        too_late,
        lost
    )
    .fetch_all(connection)
    .await?;
    Ok(to_publish(rows))
}
