//! What a change leaves besides itself: events, entries of the audit log and its response, in one statement.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    audit::{self, AuditEntry},
    outbox::{self, OutboxEvent},
    request_key::RequestKey,
    trace_context::current_trace_id,
};

/// What is written before a change is committed.
pub(super) struct Records<'a> {
    /// Whose audit log gets the entries.
    pub organization_id: Uuid,
    pub actor: &'a str,
    pub events: Vec<OutboxEvent>,
    pub audit: &'a [AuditEntry],
    /// Only of calls with a request id.
    pub response: Option<StoredResponse<'a>>,
}

/// A response under the request id of its call.
pub(super) struct StoredResponse<'a> {
    /// The nil UUID for calls that belong to no organization.
    pub organization_id: Uuid,
    pub key: &'a RequestKey,
    /// The encoded message.
    pub response: Vec<u8>,
}

impl Records<'_> {
    /// Writes all of it; `false` if another call has taken the request id, and all must be rolled back. Waits for
    /// a transaction that is taking it at the same moment.
    pub(super) async fn write(self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let events = outbox::Columns::of(self.events);
        let entries = audit::Columns::of(self.audit);
        let response = self.response.as_ref();
        let result = sqlx::query!(
            "WITH event AS (
                INSERT INTO outbox (event_id, organization_id, event_type, payload, trace_context)
                SELECT event_id, organization_id, event_type, payload, trace_context
                FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::bytea[], $5::text[])
                    AS event (event_id, organization_id, event_type, payload, trace_context)
            ), entry AS (
                INSERT INTO audit_events (
                    organization_id, audit_event_id, resource_id, actor, action, details, trace_id)
                SELECT $6, audit_event_id, resource_id, $7, action, details, $8
                FROM unnest($9::uuid[], $10::uuid[], $11::text[], $12::jsonb[])
                    AS entry (audit_event_id, resource_id, action, details)
            )
            INSERT INTO stored_responses (organization_id, request_id, request_hash, response)
            SELECT $13, $14, $15, $16 WHERE $14::uuid IS NOT NULL
            ON CONFLICT DO NOTHING",
            &events.event_ids,
            &events.organization_ids,
            &events.event_types as _,
            &events.payloads,
            &events.trace_contexts as &[Option<String>],
            self.organization_id,
            self.actor,
            current_trace_id().unwrap_or_default(),
            &entries.ids,
            &entries.resource_ids as &[Option<Uuid>],
            &entries.actions as _,
            &entries.details,
            response.map(|stored| stored.organization_id),
            response.map(|stored| stored.key.request_id),
            response.map(|stored| &stored.key.request_hash[..]),
            response.map(|stored| stored.response.as_slice()),
        )
        .execute(connection)
        .await?;
        Ok(response.is_none() || result.rows_affected() == 1)
    }
}
