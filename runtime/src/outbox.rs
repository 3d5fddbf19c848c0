//! The outbox: events on their way to the broker, written in the transaction that makes them true.
//!
//! Both services have the same table `outbox`, so its queries are here, checked at compile time against
//! account-svc's migrations. The functions work on a connection inside the caller's transaction.

pub(crate) mod age;

use prost::Message as _;
use sqlx::PgConnection;
use time::OffsetDateTime;
use usher_proto::{
    event::v1::{Event, event::Payload},
    topology::SCHEMA_VERSION,
};
use uuid::Uuid;

use crate::{bus::Message, hidden_debug, timestamp, trace_context::TraceContext};

/// An event to be published once the transaction has committed.
#[derive(Clone, PartialEq, Eq)]
pub struct OutboxEvent {
    /// Identity, a `UUIDv7`. The relay takes older events first; the order in which they arrive is not theirs.
    pub event_id: Uuid,
    /// The organization that it belongs to.
    pub organization_id: Uuid,
    /// One of [`routing_key`](usher_proto::topology::routing_key).
    pub event_type: &'static str,
    /// The encoded [`Event`]; at most [`MAX_EVENT_BYTES`](crate::bus::MAX_EVENT_BYTES).
    pub payload: Vec<u8>,
    /// The trace that it belongs to.
    pub trace_context: TraceContext,
}

hidden_debug!(OutboxEvent {
    event_id,
    event_type
});

impl OutboxEvent {
    /// An event with an id of its own, that happened at `occur_time`, in the trace of the current span.
    #[must_use]
    pub fn new(
        organization_id: Uuid,
        event_type: &'static str,
        payload: Payload,
        occur_time: OffsetDateTime,
    ) -> Self {
        let event_id = Uuid::now_v7();
        let event = Event {
            event_id: event_id.to_string(),
            event_type: event_type.to_owned(),
            occur_time: Some(timestamp::encode(occur_time)),
            organization_id: organization_id.to_string(),
            schema_version: SCHEMA_VERSION,
            payload: Some(payload),
        };
        Self {
            event_id,
            organization_id,
            event_type,
            payload: event.encode_to_vec(),
            trace_context: TraceContext::current(),
        }
    }

    /// The same event in another trace.
    #[must_use]
    pub fn in_trace(self, trace_context: TraceContext) -> Self {
        Self {
            trace_context,
            ..self
        }
    }
}

/// Events as the columns of `outbox`, to be added in one statement.
#[derive(Default)]
pub(crate) struct Columns {
    pub event_ids: Vec<Uuid>,
    pub organization_ids: Vec<Uuid>,
    pub event_types: Vec<&'static str>,
    pub payloads: Vec<Vec<u8>>,
    pub trace_contexts: Vec<Option<String>>,
}

impl Columns {
    pub fn of(events: Vec<OutboxEvent>) -> Self {
        let mut columns = Self::default();
        for event in events {
            columns.event_ids.push(event.event_id);
            columns.organization_ids.push(event.organization_id);
            columns.event_types.push(event.event_type);
            columns.payloads.push(event.payload);
            columns.trace_contexts.push(event.trace_context.0);
        }
        columns
    }
}

/// Adds events, all in one statement.
///
/// # Errors
/// If the database fails, or refuses an event that is too large to be published.
pub async fn add(
    connection: &mut PgConnection,
    events: Vec<OutboxEvent>,
) -> Result<(), sqlx::Error> {
    if events.is_empty() {
        return Ok(());
    }
    let columns = Columns::of(events);
    sqlx::query!(
        "INSERT INTO outbox (event_id, organization_id, event_type, payload, trace_context)
        SELECT event_id, organization_id, event_type, payload, trace_context
        FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::bytea[], $5::text[])
            AS event (event_id, organization_id, event_type, payload, trace_context)",
        &columns.event_ids,
        &columns.organization_ids,
        &columns.event_types as _,
        &columns.payloads,
        &columns.trace_contexts as &[Option<String>],
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Takes events for the rest of the transaction, oldest first: at most `max_events`, and none more once they
/// hold `max_bytes` of payload, so that a batch is at most one event larger than that. They are locked (those too
/// that `max_bytes` left out), and other calls pass over them until the transaction ends, however it ends: a relay
/// that dies leaves its events to the others at once.
///
/// # Errors
/// If the database fails.
pub async fn claim(
    connection: &mut PgConnection,
    max_events: i64,
    max_bytes: i64,
) -> Result<Vec<Message>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"WITH free AS MATERIALIZED (
            SELECT event_id, event_type, payload, trace_context FROM outbox
            WHERE retry_time < now()
            ORDER BY event_id LIMIT $1
            FOR UPDATE SKIP LOCKED
        ), summed AS (
            SELECT *, sum(octet_length(payload)) OVER (ROWS UNBOUNDED PRECEDING) - octet_length(payload)
                AS bytes_before
            FROM free
        )
        SELECT event_id AS "event_id!", event_type AS "event_type!", payload AS "payload!", trace_context
        FROM summed WHERE bytes_before < $2"#,
        max_events,
        max_bytes,
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
    // They come in this order, but SQL does not promise it.
    messages.sort_unstable_by_key(|message| message.event_id);
    Ok(messages)
}

/// Deletes events that the broker confirmed.
///
/// # Errors
/// If the database fails.
pub async fn delete(connection: &mut PgConnection, event_ids: &[Uuid]) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM outbox WHERE event_id = ANY ($1)", event_ids)
        .execute(connection)
        .await?;
    Ok(())
}

/// Puts events off that the broker refused: they can be claimed again when they have waited for a quarter of
/// their age, at least one second and at most a minute. So events that the broker refuses for long, which are the
/// oldest, do not keep younger ones from being claimed.
///
/// # Errors
/// If the database fails.
pub async fn put_off(connection: &mut PgConnection, event_ids: &[Uuid]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE outbox SET retry_time = clock_timestamp() + least(interval '1 minute',
            greatest(interval '1 second', (clock_timestamp() - create_time) / 4))
        WHERE event_id = ANY ($1)",
        event_ids,
    )
    .execute(connection)
    .await?;
    Ok(())
}
