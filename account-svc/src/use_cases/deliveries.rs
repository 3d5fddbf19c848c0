//! What notify-svc reports about emails, written to their invitations.

use prost::Message as _;
use sqlx::PgPool;
use usher_proto::{
    event::v1::{DeliveryChanged, DeliveryState, Event, event::Payload},
    topology::{ACCOUNT_DELIVERIES, Queue, SCHEMA_VERSION},
};
use usher_runtime::{
    bus::Message,
    consumer::EventHandler,
    database::{Scope, begin},
    timestamp, trace_context,
};
use uuid::Uuid;

use crate::{
    db::{self, invitation::DeliveryReport},
    domain::text,
};

/// Takes reports over.
pub struct Deliveries {
    /// The service's database.
    pub pool: PgPool,
}

impl EventHandler for Deliveries {
    const QUEUE: Queue = ACCOUNT_DELIVERIES;
    type Command = DeliveryReport;

    fn decode(&self, message: &Message) -> Result<Option<DeliveryReport>, String> {
        let report = decode(&message.body)?;
        if let Some(report) = &report {
            trace_context::set_attribute("invitation.id", report.invitation_id.to_string());
            trace_context::set_attribute("delivery.state", report.state);
        }
        Ok(report)
    }

    async fn store(&self, reports: &[DeliveryReport]) -> Result<(), sqlx::Error> {
        let mut tx = begin(&self.pool, Scope::Platform).await?;
        db::invitation::record_deliveries(&mut tx, reports).await?;
        tx.commit().await
    }
}

/// A report; `None` for what is no news of an invitation.
fn decode(body: &[u8]) -> Result<Option<DeliveryReport>, &'static str> {
    let event = Event::decode(body).map_err(|_| "not an event")?;
    if event.schema_version > SCHEMA_VERSION {
        return Err("envelope is newer than this version knows");
    }
    let Some(Payload::DeliveryChanged(change)) = event.payload else {
        return Err("not a delivery.changed event");
    };
    if change.invitation_id.is_empty() {
        return Ok(None);
    }
    let Some(state) = state(&change)? else {
        return Ok(None);
    };
    let id = |text: &str| Uuid::try_parse(text);
    let change_time = change.change_time.ok_or("change_time missing")?;
    let change_time = timestamp::decode(change_time).ok_or("malformed change_time")?;
    Ok(Some(DeliveryReport {
        organization_id: id(&event.organization_id).map_err(|_| "malformed organization_id")?,
        invitation_id: id(&change.invitation_id).map_err(|_| "malformed invitation_id")?,
        send_number: i32::try_from(change.send_number).map_err(|_| "send_number too large")?,
        revision: i64::try_from(change.revision).map_err(|_| "revision too large")?,
        state,
        throttled_until: change
            .throttled_until
            .map(|time| timestamp::decode(time).ok_or("malformed throttled_until"))
            .transpose()?,
        // What PostgreSQL cannot store is parked here rather than there.
        failure_reason: text::optional(&change.reason, 1_000).map_err(|_| "malformed reason")?,
        // Reports may be overtaken: one that was delivered, or came back, was sent before.
        sent_time: matches!(state, "SENT" | "DELIVERED" | "BOUNCED").then_some(change_time),
    }))
}

/// A name of `InvitationState` without its prefix; `None` if the invitation knows already.
fn state(change: &DeliveryChanged) -> Result<Option<&'static str>, &'static str> {
    Ok(Some(match DeliveryState::try_from(change.state) {
        Ok(DeliveryState::Queued) => "QUEUED",
        Ok(DeliveryState::Throttled) => "THROTTLED",
        Ok(DeliveryState::Sent) => "SENT",
        Ok(DeliveryState::Delivered) => "DELIVERED",
        Ok(DeliveryState::Bounced) => "BOUNCED",
        // Whether it arrived is not known; the reason says so.
        Ok(DeliveryState::Failed | DeliveryState::Unknown) => "FAILED",
        Ok(DeliveryState::Suppressed) => "SUPPRESSED",
        // The invitation ended before.
        Ok(DeliveryState::Cancelled) => return Ok(None),
        Ok(DeliveryState::Unspecified) | Err(_) => return Err("unknown state"),
    }))
}
