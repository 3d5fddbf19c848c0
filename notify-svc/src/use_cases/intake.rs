//! From the broker to the table of emails: each event once, in batches.

mod decode;

use sqlx::{PgConnection, PgPool};
use usher_proto::topology::{NOTIFY_INVITATIONS, Queue};
use usher_runtime::{
    consumer::EventHandler,
    database::{Scope, begin},
    event::ReceivedEvent,
    outbox,
    wake::Wake,
};
use uuid::Uuid;

use self::decode::Command;
use crate::{
    db::{
        delivery::{self, NewDelivery},
        inbox, revocation, throttle,
    },
    domain::{DeliveryChange, DeliveryState, MailRequest, Revocation},
    events,
    limits::RecipientLimits,
    metrics::Metrics,
};

/// Takes events in.
pub struct Intake {
    /// The service's database.
    pub pool: PgPool,
    /// What a recipient can be sent.
    pub limits: RecipientLimits,
    /// Wakes the sender: emails are due.
    pub due: Wake,
    /// Wakes the relay: events are in the outbox.
    pub outbox: Wake,
    /// Where figures go.
    pub metrics: Metrics,
}

/// One command with the event that brought it.
pub struct Arrival {
    event_id: Uuid,
    command: Command,
}

impl EventHandler for Intake {
    const QUEUE: Queue = NOTIFY_INVITATIONS;
    type Command = Arrival;

    fn decode(&self, event: ReceivedEvent) -> Result<Option<Arrival>, String> {
        let event_id = event.event_id;
        let command = decode::decode(event).map_err(|error| error.to_string())?;
        Ok(Some(Arrival { event_id, command }))
    }

    async fn store(&self, arrivals: &[Arrival]) -> Result<(), sqlx::Error> {
        let event_ids: Vec<_> = arrivals.iter().map(|arrival| arrival.event_id).collect();
        let mut tx = begin(&self.pool, Scope::Platform).await?;
        let mut new = inbox::insert(&mut tx, &event_ids).await?;
        let mut requests = Vec::new();
        let mut revocations = Vec::new();
        for arrival in arrivals {
            // `remove`, because an event may be in the batch twice.
            match &arrival.command {
                _ if !new.remove(&arrival.event_id) => {}
                Command::Send(request) => requests.push(MailRequest::clone(request)),
                Command::Revoke(revocation) => revocations.push(*revocation),
            }
        }
        if !revocations.is_empty() {
            revocation::insert(&mut tx, &revocations).await?;
        }
        let mut changes = Vec::new();
        if !requests.is_empty() {
            let (inserted, revoked) = self.insert_requests(&mut tx, &requests).await?;
            changes.extend(inserted);
            revocations.extend(revoked);
        }
        if !revocations.is_empty() {
            changes.extend(delivery::cancel_revoked(&mut tx, &revocations).await?);
        }
        let states: Vec<_> = changes.iter().map(|change| change.state).collect();
        outbox::add(
            &mut tx,
            changes.into_iter().map(events::delivery_changed).collect(),
        )
        .await?;
        tx.commit().await?;

        self.outbox.notify();
        self.due.notify();
        self.metrics.states(states);
        Ok(())
    }
}

impl Intake {
    /// Inserts what is new and reserves its slots. Returns the changes, and what was revoked before it came.
    async fn insert_requests(
        &self,
        connection: &mut PgConnection,
        requests: &[MailRequest],
    ) -> Result<(Vec<DeliveryChange>, Vec<Revocation>), sqlx::Error> {
        let new = delivery::insert(connection, requests).await?;
        // A revoked email takes no slot from the others.
        let (revoked, live): (Vec<_>, Vec<_>) =
            new.into_iter().partition(|delivery| delivery.revoked);
        let limits: Vec<_> = live
            .iter()
            .map(|delivery| self.limits.of(&requests[delivery.index]))
            .collect();
        let slots = throttle::reserve(connection, &limits).await?;
        let throttled: Vec<_> = live
            .iter()
            .zip(&slots)
            .filter_map(|(delivery, slot)| Some((delivery.delivery_id, (*slot)?)))
            .collect();
        delivery::throttle(connection, &throttled).await?;

        let changes: Vec<_> = live
            .iter()
            .zip(slots)
            .map(|(delivery, slot)| arrival(&requests[delivery.index], delivery, slot))
            .collect();
        for change in &changes {
            if let Some(slot) = change.throttled_until {
                self.metrics.throttled(slot - change.change_time);
            }
        }
        let revoked = revoked
            .iter()
            .map(|delivery| revocation_of(&requests[delivery.index]))
            .collect();
        Ok((changes, revoked))
    }
}

/// The change that the arrival of an email is.
fn arrival(
    request: &MailRequest,
    delivery: &NewDelivery,
    throttled_until: Option<time::OffsetDateTime>,
) -> DeliveryChange {
    DeliveryChange {
        organization_id: request.organization_id,
        delivery_id: delivery.delivery_id,
        invitation_id: request.invitation_id,
        send_number: request.send_number,
        state: if throttled_until.is_some() {
            DeliveryState::Throttled
        } else {
            DeliveryState::Queued
        },
        revision: 1,
        throttled_until,
        smtp_status: None,
        reason: None,
        change_time: delivery.create_time,
        trace_context: request.trace_context.clone(),
    }
}

fn revocation_of(request: &MailRequest) -> Revocation {
    Revocation {
        organization_id: request.organization_id,
        invitation_id: request.invitation_id,
        send_number: request.send_number,
    }
}
