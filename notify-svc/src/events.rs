//! What notify-svc tells other services.

use time::OffsetDateTime;
use usher_proto::{
    event::v1::{self as event, event::Payload},
    topology::routing_key,
};
use usher_runtime::{outbox::OutboxEvent, timestamp, trace_context::TraceContext};
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
    pub trace_context: TraceContext,
}

/// The events that tell of changes.
#[must_use]
pub fn delivery_changed(changes: Vec<DeliveryChange>) -> Vec<OutboxEvent> {
    changes.into_iter().map(event_of).collect()
}

fn event_of(change: DeliveryChange) -> OutboxEvent {
    let payload = event::DeliveryChanged {
        delivery_id: change.delivery_id.to_string(),
        invitation_id: change.invitation_id.to_string(),
        send_number: change.send_number.unsigned_abs(),
        state: event::DeliveryState::from(change.state).into(),
        revision: change.revision.unsigned_abs(),
        throttled_until: change.throttled_until.map(timestamp::encode),
        smtp_status: change.smtp_status.unwrap_or_default(),
        reason: change.reason.unwrap_or_default(),
        change_time: Some(timestamp::encode(change.change_time)),
    };
    OutboxEvent::new(
        change.organization_id,
        routing_key::DELIVERY_CHANGED,
        Payload::DeliveryChanged(payload),
        change.change_time,
    )
    .in_trace(change.trace_context)
}
