//! What notify-svc tells other services.

use usher_proto::{
    event::v1::{self as event, event::Payload},
    topology::routing_key,
};
use usher_runtime::{outbox::OutboxEvent, timestamp};

use crate::domain::DeliveryChange;

/// A delivery came to a new state.
#[must_use]
pub fn delivery_changed(change: DeliveryChange) -> OutboxEvent {
    let payload = event::DeliveryChanged {
        delivery_id: change.delivery_id.to_string(),
        invitation_id: change
            .invitation_id
            .map(|id| id.to_string())
            .unwrap_or_default(),
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
