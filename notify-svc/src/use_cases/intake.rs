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
        inbox, revocation,
    },
    domain::{DeliveryChange, DeliveryState, MailRequest, RecipientLimits, Revocation},
    events,
    metrics::Metrics,
    use_cases::{
        recipient_throttle::{self, Email, Slots},
        sending::Due,
    },
};

/// Takes events in.
pub struct Intake {
    /// The service's database.
    pub pool: PgPool,
    /// What a recipient can be sent.
    pub limits: RecipientLimits,
    /// Wakes the sender.
    pub due: Due,
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
        let new = delivery::insert(&mut tx, &requests).await?;
        let (revoked, live): (Vec<_>, Vec<_>) =
            new.into_iter().partition(|delivery| delivery.revoked);
        let revoked = revoked.iter();
        revocations.extend(revoked.map(|delivery| revocation_of(&requests[delivery.index])));
        let mut changes = delivery::cancel_revoked(&mut tx, &revocations).await?;
        let cancelled = changes.clone();
        changes.extend(
            self.give_slots(&mut tx, &requests, &live, &cancelled)
                .await?,
        );
        let states: Vec<_> = changes.iter().map(|change| change.state).collect();
        let waits = changes.iter().filter_map(|change| {
            let slot = change.throttled_until?;
            Some(slot - change.change_time)
        });
        let waits: Vec<_> = waits.collect();
        outbox::add(
            &mut tx,
            changes.into_iter().map(events::delivery_changed).collect(),
        )
        .await?;
        tx.commit().await?;

        self.outbox.notify();
        self.due.ready.notify();
        if !waits.is_empty() {
            self.due.scheduled.notify();
        }
        self.metrics.states(states);
        for wait in waits {
            self.metrics.throttled(wait.unsigned_abs());
        }
        Ok(())
    }
}

impl Intake {
    /// Frees the slots of what was cancelled, and gives new emails theirs. An email that was revoked before it came takes
    /// none from the others.
    async fn give_slots(
        &self,
        connection: &mut PgConnection,
        requests: &[MailRequest],
        new: &[NewDelivery],
        cancelled: &[DeliveryChange],
    ) -> Result<Vec<DeliveryChange>, sqlx::Error> {
        let times = new.iter().map(|delivery| delivery.create_time);
        let times = times.chain(cancelled.iter().map(|change| change.change_time));
        let Some(now) = times.max() else {
            return Ok(Vec::new());
        };
        let mut emails: Vec<_> = new
            .iter()
            .map(|delivery| {
                let request = &requests[delivery.index];
                let email = Email {
                    delivery_id: delivery.delivery_id,
                    mail_class: request.mail_class,
                    recipient: &request.recipient,
                    expire_time: request.expire_time,
                };
                (email, arrival(request, delivery))
            })
            .collect();
        emails.sort_by_key(|(email, _)| email.order());
        let freed: Vec<_> = cancelled.iter().map(|change| change.delivery_id).collect();
        let keys: Vec<_> = emails.iter().map(|(email, _)| email.key()).collect();
        let mut slots = Slots::lock(connection, &self.limits, now, &freed, keys).await?;
        slots.free(connection, &freed).await?;
        let (mut throttled, mut refused, mut changes) = (Vec::new(), Vec::new(), Vec::new());
        for (email, mut change) in emails {
            match slots.reserve(&email) {
                None => {
                    change.state = DeliveryState::Failed;
                    change.reason = Some(recipient_throttle::expires_before(false).to_owned());
                    refused.push(email.delivery_id);
                }
                Some(slot) if slot > now => {
                    change.state = DeliveryState::Throttled;
                    change.throttled_until = Some(slot);
                    throttled.push((email.delivery_id, slot));
                }
                Some(_) => {}
            }
            changes.push(change);
        }
        delivery::throttle(connection, &throttled).await?;
        let reason = recipient_throttle::expires_before(false);
        delivery::refuse(connection, &refused, reason).await?;
        changes.extend(slots.write(connection).await?);
        Ok(changes)
    }
}

/// The change that the arrival of an email is, if it waits for nothing.
fn arrival(request: &MailRequest, delivery: &NewDelivery) -> DeliveryChange {
    DeliveryChange {
        organization_id: request.organization_id,
        delivery_id: delivery.delivery_id,
        invitation_id: Some(request.invitation_id),
        send_number: request.send_number,
        state: DeliveryState::Queued,
        revision: 1,
        throttled_until: None,
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
