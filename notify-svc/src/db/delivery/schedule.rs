//! When waiting emails go, as their recipients' slots say (`recipient_slot`).

use std::collections::{BTreeMap, HashSet};

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::change::ChangedRow;
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
        "WITH throttled AS (
            UPDATE deliveries SET state = 'THROTTLED'
            FROM unnest($1::uuid[], $2::timestamptz[]) AS slot (delivery_id, time)
            WHERE deliveries.delivery_id = slot.delivery_id
            RETURNING organization_id, deliveries.delivery_id, slot.time)
         UPDATE delivery_queue AS queue SET next_attempt_time = throttled.time, ready = false
         FROM throttled
         WHERE queue.organization_id = throttled.organization_id AND queue.delivery_id = throttled.delivery_id",
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
        "WITH refused AS (
            UPDATE deliveries SET state = 'FAILED', reason = $2 WHERE delivery_id = ANY ($1)
            RETURNING organization_id, delivery_id)
         DELETE FROM delivery_queue AS queue USING refused
         WHERE queue.organization_id = refused.organization_id AND queue.delivery_id = refused.delivery_id",
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
        "SELECT queue.delivery_id FROM deliveries AS delivery
         JOIN delivery_queue AS queue USING (organization_id, delivery_id)
         WHERE delivery.delivery_id = ANY ($1) AND queue.lease_expire_time IS NULL
         FOR UPDATE OF queue SKIP LOCKED",
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
        r#"WITH slot AS (
                SELECT delivery.organization_id, slot.delivery_id, slot.time, slot.time < expire_time AS is_in_time
                FROM unnest($1::uuid[], $2::timestamptz[]) AS slot (delivery_id, time)
                JOIN deliveries AS delivery USING (delivery_id)
           ), ended AS (
                DELETE FROM delivery_queue AS queue USING slot
                WHERE queue.organization_id = slot.organization_id AND queue.delivery_id = slot.delivery_id
                  AND NOT slot.is_in_time
           ), moved AS (
                UPDATE delivery_queue AS queue SET next_attempt_time = slot.time, ready = slot.time <= now()
                FROM slot
                WHERE queue.organization_id = slot.organization_id AND queue.delivery_id = slot.delivery_id
                  AND slot.is_in_time
           )
           UPDATE deliveries AS delivery
           SET state = CASE WHEN NOT slot.is_in_time THEN 'FAILED'
                   WHEN delivery.state = 'UNKNOWN' THEN 'UNKNOWN'
                   WHEN slot.time > now() THEN 'THROTTLED'
                   ELSE 'QUEUED' END,
               reason = CASE WHEN slot.is_in_time THEN reason WHEN unknown_count = 0 THEN $3 ELSE $4 END,
               revision = revision + 1, change_xid = pg_current_xact_id(), update_time = now()
           FROM slot
           WHERE delivery.organization_id = slot.organization_id AND delivery.delivery_id = slot.delivery_id"#,
        "CASE WHEN slot.is_in_time THEN slot.time END",
        &delivery_ids,
        &times,
        too_late,
        lost
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(DeliveryChange::from).collect())
}
