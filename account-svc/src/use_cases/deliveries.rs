//! What notify-svc reports about emails, written to their invitations.

use sqlx::PgPool;
use usher_proto::{
    event::v1::{DeliveryChanged, DeliveryState, event::Payload},
    topology::{ACCOUNT_DELIVERIES, Queue},
};
use usher_runtime::{
    consumer::EventHandler,
    database::{Scope, begin},
    event::ReceivedEvent,
    outbox, timestamp, trace_context,
    wake::Wake,
};
use uuid::Uuid;

use crate::{
    db::{self, invitation::DeliveryReport},
    domain::{state::InvitationState, text},
    events,
};

/// Takes reports over.
pub struct Deliveries {
    /// The service's database.
    pub pool: PgPool,
    /// Wakes the relay: events are in the outbox.
    pub outbox: Wake,
}

impl EventHandler for Deliveries {
    const QUEUE: Queue = ACCOUNT_DELIVERIES;
    type Command = DeliveryReport;

    fn decode(&self, event: ReceivedEvent) -> Result<Option<DeliveryReport>, String> {
        let report = decode(event)?;
        if let Some(report) = &report {
            trace_context::set_attribute("invitation.id", report.invitation_id.to_string());
            trace_context::set_attribute("delivery.state", report.state.as_str());
        }
        Ok(report)
    }

    async fn store(&self, reports: &[DeliveryReport]) -> Result<(), sqlx::Error> {
        let mut tx = begin(&self.pool, Scope::Platform).await?;
        let recorded = db::invitation::record_deliveries(&mut tx, reports).await?;
        let stops = recorded
            .superseded
            .iter()
            .filter_map(events::email_to_stop)
            .collect::<Vec<_>>();
        let has_events = !stops.is_empty();
        outbox::add(&mut tx, stops).await?;
        tx.commit().await?;
        if has_events {
            self.outbox.notify();
        }
        if let Some(invitation_id) = recorded.refused.first() {
            tracing::warn!(
                count = recorded.refused.len(),
                invitation.id = %invitation_id,
                "reports on emails that were never asked for are ignored"
            );
        }
        Ok(())
    }
}

/// A report; `None` for what is no news of an invitation.
fn decode(event: ReceivedEvent) -> Result<Option<DeliveryReport>, &'static str> {
    let Payload::DeliveryChanged(change) = event.payload else {
        return Err("not a delivery.changed event");
    };
    if change.invitation_id.is_empty() {
        return Ok(None);
    }
    let state = state(&change)?;
    let change_time = change.change_time.ok_or("change_time missing")?;
    let change_time = timestamp::decode(change_time).ok_or("malformed change_time")?;
    Ok(Some(DeliveryReport {
        organization_id: event.organization_id,
        invitation_id: Uuid::try_parse(&change.invitation_id)
            .map_err(|_| "malformed invitation_id")?,
        send_number: send_number(change.send_number)?,
        revision: i64::try_from(change.revision).map_err(|_| "revision too large")?,
        state,
        throttled_until: change
            .throttled_until
            .map(|time| timestamp::decode(time).ok_or("malformed throttled_until"))
            .transpose()?,
        // What PostgreSQL cannot store is parked here rather than there.
        failure_reason: text::optional(&change.reason, 1_000).map_err(|_| "malformed reason")?,
        // Reports may be overtaken: one that was delivered, or came back, was sent before.
        sent_time: state.has_left().then_some(change_time),
    }))
}

/// The number of an email, from 1.
fn send_number(number: u32) -> Result<i32, &'static str> {
    match i32::try_from(number) {
        Ok(0) => Err("send_number missing"),
        Ok(number) => Ok(number),
        Err(_) => Err("send_number too large"),
    }
}

/// The state that an email gives its invitation.
fn state(change: &DeliveryChanged) -> Result<InvitationState, &'static str> {
    Ok(match DeliveryState::try_from(change.state) {
        // What is sent once more, because the relay's answer was lost, waits like the others.
        Ok(DeliveryState::Queued | DeliveryState::Unknown) => InvitationState::Queued,
        Ok(DeliveryState::Throttled) => InvitationState::Throttled,
        Ok(DeliveryState::Sent) => InvitationState::Sent,
        Ok(DeliveryState::Delivered) => InvitationState::Delivered,
        Ok(DeliveryState::Bounced) => InvitationState::Bounced,
        // The reason tells staff which.
        Ok(DeliveryState::Failed | DeliveryState::Cancelled) => InvitationState::Failed,
        Ok(DeliveryState::Suppressed) => InvitationState::Suppressed,
        Ok(DeliveryState::Unspecified) | Err(_) => return Err("unknown state"),
    })
}
