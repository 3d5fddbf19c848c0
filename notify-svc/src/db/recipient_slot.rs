//! Slots of recipients: when their emails went or are to go. The arithmetic is in [`crate::domain::Window`].
//!
//! A transaction locks rows of `delivery_queue` first and the recipients after them, and never waits for a row of
//! `delivery_queue` while it holds a recipient: so nobody waits in a circle.

use std::time::Duration;

use sqlx::PgConnection;
use uuid::Uuid;

use crate::domain::{MailClass, RecipientKey, Slot, SlotState};

/// Locks recipients until the end of the transaction, and reads all their slots, the earliest first.
///
/// # Errors
/// If the database fails.
pub async fn lock(
    connection: &mut PgConnection,
    recipients: &[RecipientKey],
) -> Result<Vec<Slot>, sqlx::Error> {
    let mut keys: Vec<i64> = recipients.iter().map(|key| key.0).collect();
    // In one order, so that two replicas wait for each other instead of deadlocking.
    keys.sort_unstable();
    keys.dedup();
    sqlx::query!(
        "SELECT pg_advisory_xact_lock(key) FROM unnest($1::bigint[]) AS key",
        &keys
    )
    .fetch_all(&mut *connection)
    .await?;
    // A statement of its own sees what the others wrote.
    read(connection, &keys).await
}

/// Reads all slots of recipients, the earliest first.
///
/// # Errors
/// If the database fails.
pub async fn read(
    connection: &mut PgConnection,
    recipients: &[i64],
) -> Result<Vec<Slot>, sqlx::Error> {
    sqlx::query_as!(
        Slot,
        r#"SELECT delivery_id, slot_number, recipient_key AS "recipient_key: RecipientKey",
                mail_class AS "mail_class: MailClass", state AS "state: SlotState", from_time, slot_time
           FROM recipient_slots WHERE recipient_key = ANY ($1)
           ORDER BY slot_time, delivery_id, slot_number"#,
        recipients
    )
    .fetch_all(connection)
    .await
}

/// The recipients of emails.
///
/// # Errors
/// If the database fails.
pub async fn recipients(
    connection: &mut PgConnection,
    delivery_ids: &[Uuid],
) -> Result<Vec<RecipientKey>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT DISTINCT recipient_key AS "key: RecipientKey" FROM recipient_slots
           WHERE delivery_id = ANY ($1)"#,
        delivery_ids
    )
    .fetch_all(connection)
    .await
}

/// Writes slots of recipients that are locked.
///
/// # Errors
/// If the database fails.
pub async fn write(connection: &mut PgConnection, slots: &[Slot]) -> Result<(), sqlx::Error> {
    fn column<T>(slots: &[Slot], value: impl Fn(&Slot) -> T) -> Vec<T> {
        slots.iter().map(value).collect()
    }
    if slots.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "INSERT INTO recipient_slots (
            delivery_id, slot_number, recipient_key, mail_class, state, from_time, slot_time)
         SELECT * FROM unnest($1::uuid[], $2::integer[], $3::bigint[], $4::text[], $5::text[],
            $6::timestamptz[], $7::timestamptz[])
         ON CONFLICT (delivery_id, slot_number) DO UPDATE SET
            state = excluded.state, from_time = excluded.from_time, slot_time = excluded.slot_time",
        &column(slots, |slot| slot.delivery_id),
        &column(slots, |slot| slot.slot_number),
        &column(slots, |slot| slot.recipient_key.0),
        &column(slots, |slot| slot.mail_class.as_str().to_owned()),
        &column(slots, |slot| slot.state.as_str().to_owned()),
        &column(slots, |slot| slot.from_time),
        &column(slots, |slot| slot.slot_time)
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes slots, by email and number, of recipients that are locked.
///
/// # Errors
/// If the database fails.
pub async fn free(connection: &mut PgConnection, slots: &[(Uuid, i32)]) -> Result<(), sqlx::Error> {
    if slots.is_empty() {
        return Ok(());
    }
    let (delivery_ids, slot_numbers): (Vec<_>, Vec<_>) = slots.iter().copied().unzip();
    sqlx::query!(
        "DELETE FROM recipient_slots
         USING unnest($1::uuid[], $2::integer[]) AS freed (delivery_id, slot_number)
         WHERE recipient_slots.delivery_id = freed.delivery_id
           AND recipient_slots.slot_number = freed.slot_number",
        &delivery_ids,
        &slot_numbers
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Notes that emails have arrived, or may have. Needs no lock: until then they count as arriving now.
///
/// # Errors
/// If the database fails.
pub async fn arrived(
    connection: &mut PgConnection,
    delivery_ids: &[Uuid],
) -> Result<(), sqlx::Error> {
    if delivery_ids.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE recipient_slots SET state = 'GONE', slot_time = greatest(slot_time, clock_timestamp())
         WHERE delivery_id = ANY ($1) AND state = 'GOING'",
        delivery_ids
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes at most `limit` slots that count no more: used longer than `memory` ago.
///
/// # Errors
/// If the database fails.
pub async fn purge(
    connection: &mut PgConnection,
    memory: Duration,
    limit: i64,
) -> Result<u64, sqlx::Error> {
    let deleted = sqlx::query!(
        // Ids are UUIDv7, and no slot is before its email was asked for: the primary key finds the oldest.
        "DELETE FROM recipient_slots WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM recipient_slots
            WHERE delivery_id < (lpad(to_hex(
                    (extract(epoch FROM now() - make_interval(secs => $1)) * 1000)::bigint), 12, '0')
                    || repeat('0', 20))::uuid
                AND state = 'GONE' AND slot_time < now() - make_interval(secs => $1)
            ORDER BY delivery_id LIMIT $2
            FOR UPDATE SKIP LOCKED))",
        memory.as_secs_f64(),
        limit
    )
    .execute(connection)
    .await?;
    Ok(deleted.rows_affected())
}
