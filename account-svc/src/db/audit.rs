//! The audit log: who did what to which account. Append-only, without personal data.

use std::collections::BTreeMap;

use sqlx::{PgConnection, types::Json};
use time::OffsetDateTime;
use usher_runtime::{page::Rows, trace_context::current_trace_id};
use uuid::Uuid;

use super::MAX_SCANNED;
use crate::domain::audit::{AuditEntry, AuditEvent};

/// Adds entries, in the trace of the current call.
///
/// # Errors
/// If the database fails.
pub async fn add(
    connection: &mut PgConnection,
    organization_id: Uuid,
    actor: &str,
    entries: &[AuditEntry],
) -> Result<(), sqlx::Error> {
    let ids: Vec<Uuid> = entries.iter().map(|_| Uuid::now_v7()).collect();
    let account_ids: Vec<Option<Uuid>> = entries.iter().map(|entry| entry.account_id).collect();
    let actions: Vec<String> = entries
        .iter()
        .map(|entry| entry.action.as_str().to_owned())
        .collect();
    let details: Vec<_> = entries
        .iter()
        .map(|entry| serde_json::json!(entry.details))
        .collect();
    sqlx::query!(
        "INSERT INTO audit_events (
            organization_id, audit_event_id, account_id, actor, action, details, trace_id)
        SELECT $1, audit_event_id, account_id, $5, action, details, $7
        FROM unnest($2::uuid[], $3::uuid[], $4::text[], $6::jsonb[])
            AS entry (audit_event_id, account_id, action, details)",
        organization_id,
        &ids,
        &account_ids as &[Option<Uuid>],
        &actions,
        actor,
        &details,
        current_trace_id().unwrap_or_default(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Which entries to list; every filter that is given must hold.
#[derive(Debug, Default)]
pub struct AuditFilter {
    /// Only of this account.
    pub account_id: Option<Uuid>,
    /// Only by this actor.
    pub actor: Option<String>,
    /// Only these actions; none means all.
    pub actions: Vec<String>,
    /// Done at this time or later.
    pub occurred_from: Option<OffsetDateTime>,
    /// Done before this time.
    pub occurred_before: Option<OffsetDateTime>,
}

/// Lists entries, newest first, after the one that the page before ended with. Scans up to
/// [`MAX_SCANNED`] of them.
///
/// # Errors
/// If the database fails.
pub async fn list(
    connection: &mut PgConnection,
    organization_id: Uuid,
    filter: &AuditFilter,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Rows<AuditEvent>, sqlx::Error> {
    let after = after.unwrap_or(Uuid::max());
    // The account's own index is short enough to be read to its end; the organization's is not.
    let last_scanned = match filter.account_id {
        Some(_) => None,
        None => {
            sqlx::query_scalar!(
                "SELECT audit_event_id FROM audit_events
                WHERE organization_id = $1 AND audit_event_id < $2
                ORDER BY audit_event_id DESC OFFSET $3 LIMIT 1",
                organization_id,
                after,
                MAX_SCANNED - 1,
            )
            .fetch_optional(&mut *connection)
            .await?
        }
    };
    let rows = match filter.account_id {
        Some(account_id) => {
            sqlx::query_as!(
                Row,
                r#"SELECT audit_event_id, account_id, actor, action,
                    details AS "details: Json<BTreeMap<String, String>>", trace_id, occur_time
                FROM audit_events
                WHERE organization_id = $1 AND account_id = $2 AND audit_event_id < $3
                    AND ($4::text IS NULL OR actor = $4)
                    AND (cardinality($5::text[]) = 0 OR action = ANY($5))
                    AND ($6::timestamptz IS NULL OR occur_time >= $6)
                    AND ($7::timestamptz IS NULL OR occur_time < $7)
                ORDER BY audit_event_id DESC LIMIT $8"#,
                organization_id,
                account_id,
                after,
                filter.actor,
                &filter.actions,
                filter.occurred_from,
                filter.occurred_before,
                limit,
            )
            .fetch_all(connection)
            .await?
        }
        None => {
            sqlx::query_as!(
                Row,
                r#"SELECT audit_event_id, account_id, actor, action,
                    details AS "details: Json<BTreeMap<String, String>>", trace_id, occur_time
                FROM audit_events
                WHERE organization_id = $1 AND audit_event_id < $2 AND audit_event_id >= $3
                    AND ($4::text IS NULL OR actor = $4)
                    AND (cardinality($5::text[]) = 0 OR action = ANY($5))
                    AND ($6::timestamptz IS NULL OR occur_time >= $6)
                    AND ($7::timestamptz IS NULL OR occur_time < $7)
                ORDER BY audit_event_id DESC LIMIT $8"#,
                organization_id,
                after,
                last_scanned.unwrap_or(Uuid::nil()),
                filter.actor,
                &filter.actions,
                filter.occurred_from,
                filter.occurred_before,
                limit,
            )
            .fetch_all(connection)
            .await?
        }
    };
    Ok(Rows {
        rows: rows.into_iter().map(AuditEvent::from).collect(),
        last_scanned,
    })
}

struct Row {
    audit_event_id: Uuid,
    account_id: Option<Uuid>,
    actor: String,
    action: String,
    details: Json<BTreeMap<String, String>>,
    trace_id: String,
    occur_time: OffsetDateTime,
}

impl From<Row> for AuditEvent {
    fn from(row: Row) -> Self {
        Self {
            audit_event_id: row.audit_event_id,
            account_id: row.account_id,
            actor: row.actor,
            action: row.action,
            details: row.details.0,
            trace_id: row.trace_id,
            occur_time: row.occur_time,
        }
    }
}

/// Deletes up to `limit` entries that are older than ten years, which is all that the database lets go;
/// answers how many there were.
///
/// # Errors
/// If the database fails.
pub async fn purge(connection: &mut PgConnection, limit: i64) -> Result<u64, sqlx::Error> {
    let result = sqlx::query!(
        "DELETE FROM audit_events WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM audit_events
            WHERE occur_time < now() - interval '10 years' ORDER BY occur_time LIMIT $1))",
        limit,
    )
    .execute(connection)
    .await?;
    Ok(result.rows_affected())
}
