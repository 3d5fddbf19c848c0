//! Changes of the state, as they are published.

use time::OffsetDateTime;
use usher_runtime::trace_context::TraceContext;
use uuid::Uuid;

use crate::domain::{DeliveryChange, DeliveryState};

/// Runs an update of `deliveries AS delivery` and returns the changes as [`ChangedRow`]; `$next` is SQL for the time of
/// the next attempt.
macro_rules! change_deliveries {
    ($update:literal, $next:literal, $($argument:expr),* $(,)?) => {
        sqlx::query_as!(
            ChangedRow,
            $update
                + r#" RETURNING delivery.organization_id, delivery.delivery_id, delivery.invitation_id,
                delivery.send_number, delivery.state AS "state: DeliveryState", delivery.revision,
                delivery.smtp_status, delivery.reason, delivery.update_time, delivery.trace_context, "#
                + $next
                + r#" AS "next_attempt_time?""#,
            $($argument),*
        )
    };
}

/// A row that was changed.
pub(super) struct ChangedRow {
    pub organization_id: Uuid,
    pub delivery_id: Uuid,
    pub invitation_id: Option<Uuid>,
    pub send_number: i32,
    pub state: DeliveryState,
    pub revision: i64,
    pub next_attempt_time: Option<OffsetDateTime>,
    pub smtp_status: Option<String>,
    pub reason: Option<String>,
    pub update_time: OffsetDateTime,
    pub trace_context: Option<String>,
}

impl From<ChangedRow> for DeliveryChange {
    fn from(row: ChangedRow) -> Self {
        Self {
            organization_id: row.organization_id,
            delivery_id: row.delivery_id,
            invitation_id: row.invitation_id,
            send_number: row.send_number,
            state: row.state,
            revision: row.revision,
            throttled_until: row
                .next_attempt_time
                .filter(|_| row.state == DeliveryState::Throttled),
            smtp_status: row.smtp_status,
            reason: row.reason,
            change_time: row.update_time,
            trace_context: TraceContext(row.trace_context),
        }
    }
}
