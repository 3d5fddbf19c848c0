//! Changes of deliveries on their way to the broker.

use prost::Message as _;
use prost_types::Timestamp;
use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;
use usher_proto::{
    event::v1::{self as event, event::Payload},
    topology::{SCHEMA_VERSION, routing_key},
};
use usher_runtime::{
    bus::Message,
    database::{Scope, begin},
    relay::OutboxStore,
    trace_context::TraceContext,
};
use uuid::Uuid;

use crate::domain::DeliveryState;

/// A delivery came to a new state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryChange {
    /// The organization of the delivery.
    pub organization_id: Uuid,
    /// The delivery.
    pub delivery_id: Uuid,
    /// The invitation that it belongs to.
    pub invitation_id: Uuid,
    /// Which email of the invitation.
    pub send_number: i32,
    /// The new state.
    pub state: DeliveryState,
    /// Orders the changes of a delivery.
    pub revision: i64,
    /// When a throttled email goes.
    pub throttled_until: Option<OffsetDateTime>,
    /// Reply of the relay.
    pub smtp_status: Option<String>,
    /// Why, in words for staff.
    pub reason: Option<String>,
    /// When the change was committed.
    pub change_time: OffsetDateTime,
    /// The trace that asked for the email.
    pub traceparent: Option<String>,
}

impl DeliveryChange {
    fn into_event(self, event_id: Uuid) -> event::Event {
        let change_time = timestamp(self.change_time);
        event::Event {
            event_id: event_id.to_string(),
            event_type: routing_key::DELIVERY_CHANGED.to_owned(),
            occur_time: Some(change_time),
            organization_id: self.organization_id.to_string(),
            schema_version: SCHEMA_VERSION,
            payload: Some(Payload::DeliveryChanged(event::DeliveryChanged {
                delivery_id: self.delivery_id.to_string(),
                invitation_id: self.invitation_id.to_string(),
                send_number: self.send_number.unsigned_abs(),
                state: event::DeliveryState::from(self.state).into(),
                revision: self.revision.unsigned_abs(),
                throttled_until: self.throttled_until.map(timestamp),
                smtp_status: self.smtp_status.unwrap_or_default(),
                reason: self.reason.unwrap_or_default(),
                change_time: Some(change_time),
            })),
        }
    }
}

/// A time in the form of the contract.
#[must_use]
pub fn timestamp(time: OffsetDateTime) -> Timestamp {
    Timestamp {
        seconds: time.unix_timestamp(),
        // Below 10^9.
        nanos: i32::try_from(time.nanosecond()).unwrap_or_default(),
    }
}

/// Puts changes into the outbox, in the transaction that made them.
///
/// # Errors
/// If the database fails.
pub async fn outbox_insert(
    connection: &mut PgConnection,
    changes: Vec<DeliveryChange>,
) -> Result<(), sqlx::Error> {
    if changes.is_empty() {
        return Ok(());
    }
    let mut event_ids = Vec::with_capacity(changes.len());
    let mut organization_ids = Vec::with_capacity(changes.len());
    let mut bodies = Vec::with_capacity(changes.len());
    let mut traceparents = Vec::with_capacity(changes.len());
    for change in changes {
        let event_id = Uuid::now_v7();
        event_ids.push(event_id);
        organization_ids.push(change.organization_id);
        traceparents.push(change.traceparent.clone());
        bodies.push(change.into_event(event_id).encode_to_vec());
    }
    sqlx::query!(
        "INSERT INTO outbox (event_id, organization_id, event_type, body, traceparent)
         SELECT event_id, organization_id, $1, body, traceparent
         FROM unnest($2::uuid[], $3::uuid[], $4::bytea[], $5::text[])
            AS change (event_id, organization_id, body, traceparent)",
        routing_key::DELIVERY_CHANGED,
        &event_ids,
        &organization_ids,
        &bodies,
        &traceparents as &[Option<String>]
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The outbox table, as the relay sees it.
#[derive(Debug, Clone)]
pub struct Outbox(pub PgPool);

impl OutboxStore for Outbox {
    async fn claim(&self, limit: i64) -> Result<Vec<Message>, sqlx::Error> {
        let mut transaction = begin(&self.0, Scope::Platform).await?;
        let rows = sqlx::query!(
            "UPDATE outbox SET lease_end_time = now() + interval '2 minutes'
             WHERE event_id = ANY (ARRAY(
                SELECT event_id FROM outbox
                WHERE lease_end_time IS NULL OR lease_end_time < now()
                ORDER BY create_time
                LIMIT $1
                FOR UPDATE SKIP LOCKED))
             RETURNING event_id, event_type, body, traceparent",
            limit
        )
        .fetch_all(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(rows
            .into_iter()
            .map(|row| Message {
                event_id: row.event_id,
                event_type: row.event_type,
                body: row.body,
                trace_context: TraceContext(row.traceparent),
            })
            .collect())
    }

    async fn delete(&self, event_ids: &[Uuid]) -> Result<(), sqlx::Error> {
        let mut transaction = begin(&self.0, Scope::Platform).await?;
        sqlx::query!("DELETE FROM outbox WHERE event_id = ANY ($1)", event_ids)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await
    }

    async fn release(&self, event_ids: &[Uuid]) -> Result<(), sqlx::Error> {
        let mut transaction = begin(&self.0, Scope::Platform).await?;
        sqlx::query!(
            "UPDATE outbox SET lease_end_time = NULL WHERE event_id = ANY ($1)",
            event_ids
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await
    }
}
