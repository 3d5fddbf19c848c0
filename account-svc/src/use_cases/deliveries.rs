//! What notify-svc reports about emails, written to their invitations.

use std::time::Duration;

use prost::Message as _;
use sqlx::PgPool;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use usher_proto::{
    event::v1::{DeliveryState, Event, event::Payload},
    topology::{ACCOUNT_DELIVERIES, SCHEMA_VERSION},
};
use usher_runtime::{
    bus::{EventBus, Message, Received},
    database::{self, Scope},
};
use uuid::Uuid;

use crate::{
    db::{self, invitation::DeliveryReport},
    domain::text,
};

const BATCH: usize = 100;
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Consumes delivery events until `stop`.
pub async fn run(pool: PgPool, bus: EventBus, stop: CancellationToken) {
    let mut subscription = bus.subscribe(ACCOUNT_DELIVERIES);
    loop {
        let batch = tokio::select! {
            batch = subscription.next_batch(BATCH) => batch,
            () = stop.cancelled() => return,
        };
        if let Err(error) = take(&pool, batch).await {
            tracing::warn!(%error, "delivery events wait for the database");
            tokio::select! {
                () = tokio::time::sleep(RETRY_DELAY) => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

/// Takes a batch over in one transaction. What cannot be decoded is parked; if the database fails, the
/// rest goes back to the queue.
async fn take(pool: &PgPool, batch: Vec<Received>) -> Result<(), sqlx::Error> {
    let mut reports = Vec::with_capacity(batch.len());
    for received in batch {
        match decode(&received.message.body) {
            Ok(Some(report)) => reports.push((report, received)),
            Ok(None) => acknowledge(received).await,
            Err(reason) => {
                tracing::warn!(event.id = %received.message.event_id, reason, "event parked");
                if let Err(error) = received.dead_letter(reason).await {
                    tracing::warn!(%error, "event could not be parked and comes again");
                }
            }
        }
    }
    let mut tx = database::begin(pool, Scope::Platform).await?;
    for ((organization_id, report), received) in &reports {
        db::invitation::record_delivery(&mut tx, *organization_id, report)
            .instrument(span(&received.message, report))
            .await?;
    }
    tx.commit().await?;
    for (_, received) in reports {
        acknowledge(received).await;
    }
    Ok(())
}

fn span(message: &Message, report: &DeliveryReport) -> tracing::Span {
    let span = tracing::info_span!(
        "consume",
        otel.kind = "consumer",
        messaging.system = "rabbitmq",
        messaging.operation.type = "process",
        messaging.destination.name = ACCOUNT_DELIVERIES.name,
        messaging.message.id = %message.event_id,
        event.type = message.event_type,
        invitation.id = %report.invitation_id,
        delivery.state = report.state,
        trace.id = tracing::field::Empty,
    );
    message.trace_context.set_parent_of(&span);
    span
}

async fn acknowledge(received: Received) {
    if let Err(error) = received.ack().await {
        // It comes again, and is not newer than what is recorded.
        tracing::debug!(%error, "delivery event was not acknowledged");
    }
}

/// A report, with the organization it belongs to; `None` for what is no news of an invitation.
fn decode(body: &[u8]) -> Result<Option<(Uuid, DeliveryReport)>, &'static str> {
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
    let id = |text: &str| Uuid::try_parse(text);
    let organization_id = id(&event.organization_id).map_err(|_| "malformed organization_id")?;
    let invitation_id = id(&change.invitation_id).map_err(|_| "malformed invitation_id")?;
    let state = match DeliveryState::try_from(change.state) {
        Ok(DeliveryState::Queued) => "QUEUED",
        Ok(DeliveryState::Throttled) => "THROTTLED",
        Ok(DeliveryState::Sent) => "SENT",
        Ok(DeliveryState::Delivered) => "DELIVERED",
        Ok(DeliveryState::Bounced) => "BOUNCED",
        // Whether it arrived is not known; the reason says so.
        Ok(DeliveryState::Failed | DeliveryState::Unknown) => "FAILED",
        Ok(DeliveryState::Suppressed) => "SUPPRESSED",
        // The invitation ended before: it knows.
        Ok(DeliveryState::Cancelled) => return Ok(None),
        Ok(DeliveryState::Unspecified) | Err(_) => return Err("unknown state"),
    };
    let report = DeliveryReport {
        invitation_id,
        send_number: i32::try_from(change.send_number).map_err(|_| "send_number too large")?,
        revision: i64::try_from(change.revision).map_err(|_| "revision too large")?,
        state,
        throttled_until: change.throttled_until.and_then(time_of),
        // What PostgreSQL cannot store would come back for ever.
        failure_reason: text::optional(&change.reason, 1_000).map_err(|_| "malformed reason")?,
        change_time: change
            .change_time
            .and_then(time_of)
            .ok_or("change_time missing")?,
    };
    Ok(Some((organization_id, report)))
}

fn time_of(timestamp: prost_types::Timestamp) -> Option<OffsetDateTime> {
    let seconds = OffsetDateTime::from_unix_timestamp(timestamp.seconds).ok()?;
    Some(seconds + time::Duration::nanoseconds(timestamp.nanos.into()))
}
