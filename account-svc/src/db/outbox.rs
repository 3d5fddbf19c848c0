//! Events on their way to the broker.

use std::time::Duration;

use sqlx::{PgConnection, postgres::types::PgInterval};
use usher_runtime::{bus::Message, trace_context::TraceContext};
use uuid::Uuid;

/// An event to be published once the transaction has committed.
#[derive(Debug)]
pub struct OutboxEvent {
    /// Identity.
    pub event_id: Uuid,
    /// Routing key.
    pub event_type: &'static str,
    /// The encoded `usher.event.v1.Event`.
    pub payload: Vec<u8>,
}

/// Adds events, in the trace of the current call.
///
/// # Errors
/// If the database fails.
pub async fn add(
    connection: &mut PgConnection,
    organization_id: Uuid,
    events: Vec<OutboxEvent>,
) -> Result<(), sqlx::Error> {
    let trace_context = TraceContext::current();
    let mut ids = Vec::with_capacity(events.len());
    let mut types = Vec::with_capacity(events.len());
    let mut payloads = Vec::with_capacity(events.len());
    for event in events {
        ids.push(event.event_id);
        types.push(event.event_type.to_owned());
        payloads.push(event.payload);
    }
    sqlx::query!(
        "INSERT INTO outbox (event_id, organization_id, event_type, payload, trace_context)
        SELECT event_id, $1, event_type, payload, $5
        FROM unnest($2::uuid[], $3::text[], $4::bytea[]) AS event (event_id, event_type, payload)",
        organization_id,
        &ids,
        &types,
        &payloads,
        trace_context.0,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Leases up to `limit` events to the caller, oldest first. Rows that another relay holds are passed over.
///
/// # Errors
/// If the database fails.
pub async fn claim(
    connection: &mut PgConnection,
    limit: i64,
    lease: Duration,
) -> Result<Vec<Message>, sqlx::Error> {
    let lease = PgInterval {
        months: 0,
        days: 0,
        microseconds: i64::try_from(lease.as_micros()).unwrap_or(i64::MAX),
    };
    let rows = sqlx::query!(
        "UPDATE outbox SET lease_expire_time = now() + $2::interval
        WHERE event_id = ANY (ARRAY(
            SELECT event_id FROM outbox
            WHERE lease_expire_time < now()
            ORDER BY event_id LIMIT $1
            FOR UPDATE SKIP LOCKED))
        RETURNING event_id, event_type, payload, trace_context",
        limit,
        lease,
    )
    .fetch_all(connection)
    .await?;
    let mut messages: Vec<Message> = rows
        .into_iter()
        .map(|row| Message {
            event_id: row.event_id,
            event_type: row.event_type,
            body: row.payload,
            trace_context: TraceContext(row.trace_context),
        })
        .collect();
    messages.sort_unstable_by_key(|message| message.event_id);
    Ok(messages)
}

/// Deletes events that the broker confirmed.
///
/// # Errors
/// If the database fails.
pub async fn delete(connection: &mut PgConnection, event_ids: &[Uuid]) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM outbox WHERE event_id = ANY($1)", event_ids)
        .execute(connection)
        .await?;
    Ok(())
}

/// Ends the lease of events that could not be published.
///
/// # Errors
/// If the database fails.
pub async fn release(connection: &mut PgConnection, event_ids: &[Uuid]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE outbox SET lease_expire_time = '-infinity' WHERE event_id = ANY($1)",
        event_ids,
    )
    .execute(connection)
    .await?;
    Ok(())
}
