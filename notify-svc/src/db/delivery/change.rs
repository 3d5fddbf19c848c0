//! Changes of the state, as they are published.

use time::OffsetDateTime;
use usher_runtime::trace_context::TraceContext;
use uuid::Uuid;

use crate::domain::{DeliveryChange, DeliveryState};

/// Runs an update of `deliveries AS delivery` and returns the rows as [`ChangedRow`]; `$publish` is SQL that says
/// whether a change is to be published.
macro_rules! change_deliveries {
    ($update:literal, $publish:literal, $($argument:expr),* $(,)?) => {
        sqlx::query_as!(
            ChangedRow,
            $update
                + r#" RETURNING delivery.organization_id, delivery.delivery_id, delivery.invitation_id,
                delivery.send_number, delivery.state AS "state: DeliveryState", delivery.revision,
                delivery.next_attempt_time, delivery.smtp_status, delivery.reason, delivery.update_time,
                delivery.trace_context, "#
                + $publish
                + r#" AS "publish!""#,
            $($argument),*
        )
    };
}

/// A row that was changed.
pub(super) struct ChangedRow {
    pub organization_id: Uuid,
    pub delivery_id: Uuid,
    pub invitation_id: Uuid,
    pub send_number: i32,
    pub state: DeliveryState,
    pub revision: i64,
    pub next_attempt_time: Option<OffsetDateTime>,
    pub smtp_status: Option<String>,
    pub reason: Option<String>,
    pub update_time: OffsetDateTime,
    pub trace_context: Option<String>,
    pub publish: bool,
}

/// The changes that are to be published.
pub(super) fn to_publish(rows: Vec<ChangedRow>) -> Vec<DeliveryChange> {
    rows.into_iter()
        .filter(|row| row.publish)
        .map(DeliveryChange::from)
        .collect()
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
