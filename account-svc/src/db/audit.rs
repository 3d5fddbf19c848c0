//! The audit log, as it is read: who did what to which account. [`usher_runtime::audit`] writes it.

use std::collections::BTreeMap;

use sqlx::{PgConnection, types::Json};
use time::OffsetDateTime;
use usher_runtime::page::Rows;
use uuid::Uuid;

use super::MAX_SCANNED;
use crate::domain::audit::AuditEvent;

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

/// Reads entries that pass the filter, newest first, after `$after`; `$condition` bounds what is scanned.
macro_rules! select_audit_events {
    ($condition:literal, $organization_id:expr, $after:expr, $filter:expr, $limit:expr, $bound:expr) => {
        sqlx::query_as!(
            Row,
            r#"SELECT audit_event_id, resource_id AS account_id, actor, action,
                details AS "details: Json<BTreeMap<String, String>>", trace_id, occur_time
            FROM audit_events
            WHERE organization_id = $1 AND audit_event_id < $2
                AND ($3::text IS NULL OR actor = $3)
                AND (cardinality($4::text[]) = 0 OR action = ANY($4))
                AND ($5::timestamptz IS NULL OR occur_time >= $5)
                AND ($6::timestamptz IS NULL OR occur_time < $6) "#
                + $condition
                + " ORDER BY audit_event_id DESC LIMIT $7",
            $organization_id,
            $after,
            $filter.actor,
            &$filter.actions,
            $filter.occurred_from,
            $filter.occurred_before,
            $limit,
            $bound,
        )
    };
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
    if let Some(account_id) = filter.account_id {
        // The account's own index is short enough to be read to its end; the organization's is not.
        let rows = select_audit_events!(
            "AND resource_id = $8",
            organization_id,
            after,
            filter,
            limit,
            account_id
        )
        .fetch_all(connection)
        .await?;
        return Ok(events(rows).into());
    }
    let last_scanned = sqlx::query_scalar!(
        "SELECT audit_event_id FROM audit_events
                WHERE organization_id = $1 AND audit_event_id < $2
                ORDER BY audit_event_id DESC OFFSET $3 LIMIT 1",
        organization_id,
        after,
        MAX_SCANNED - 1,
    )
    .fetch_optional(&mut *connection)
    .await?;
    let rows = select_audit_events!(
        "AND audit_event_id >= $8",
        organization_id,
        after,
        filter,
        limit,
        last_scanned.unwrap_or(Uuid::nil())
    )
    .fetch_all(connection)
    .await?;
    Ok(Rows {
        rows: events(rows),
        last_scanned,
    })
}

fn events(rows: Vec<Row>) -> Vec<AuditEvent> {
    rows.into_iter().map(AuditEvent::from).collect()
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
