//! From the broker to the table of emails: each event once, in batches, and acknowledged only when it is
//! durable.

mod decode;

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use sqlx::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use usher_proto::topology::NOTIFY_INVITATIONS;
use usher_runtime::{
    backoff::Backoff,
    bus::{EventBus, Received},
    database::{Scope, begin},
    outbox,
    relay::Wake,
};
use uuid::Uuid;

pub use self::decode::{Command, DecodeError, MailRequest, Revocation, decode};
use crate::{
    db::{
        deliveries::{NewDelivery, arrival, deliveries_insert, deliveries_throttle},
        inbox::inbox_insert,
        revocations::{deliveries_cancel_revoked, revocations_insert},
        throttles::throttles_reserve,
    },
    events::{DeliveryChange, delivery_changed},
    limits::RecipientLimits,
    metrics::Metrics,
    sender::Due,
};

/// Messages that are taken in by one transaction.
const BATCH: usize = 200;

/// Takes events in.
pub struct Intake {
    /// The service's database.
    pub pool: PgPool,
    /// Where events come from.
    pub bus: EventBus,
    /// What a recipient can be sent.
    pub limits: RecipientLimits,
    /// Told when emails are due.
    pub due: Due,
    /// Told when events are in the outbox.
    pub outbox: Wake,
    /// Where figures go.
    pub metrics: Metrics,
}

/// One command with the event that brought it.
type Arrival = (Uuid, Command);

impl Intake {
    /// Takes events in until `stop`. What is not acknowledged by then is delivered again.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut subscription = self.bus.subscribe(NOTIFY_INVITATIONS);
        loop {
            let mut batch = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                batch = subscription.next_batch(BATCH) => batch,
            };
            let span = tracing::info_span!("intake", messaging.batch.message_count = batch.len());
            // Each event in the trace of its own; they end together.
            let _events: Vec<_> = batch
                .iter_mut()
                .filter_map(|received| received.message.consumer_span(NOTIFY_INVITATIONS))
                .collect();
            self.take_in(batch, &stop).instrument(span).await;
        }
    }

    async fn take_in(&self, batch: Vec<Received>, stop: &CancellationToken) {
        let mut arrivals = Vec::with_capacity(batch.len());
        let mut readable = Vec::with_capacity(batch.len());
        let mut unreadable = Vec::new();
        for received in batch {
            match decode(&received.message) {
                Ok(command) => {
                    arrivals.push((received.message.event_id, command));
                    readable.push(received);
                }
                Err(error) => unreadable.push((received, error.to_string())),
            }
        }
        self.metrics.dead_letters(unreadable.len());
        // Neighbours do not wait for a poison message to be parked.
        tokio::join!(
            park(unreadable),
            self.store_and_acknowledge(readable, arrivals, stop)
        );
    }

    async fn store_and_acknowledge(
        &self,
        batch: Vec<Received>,
        arrivals: Vec<Arrival>,
        stop: &CancellationToken,
    ) {
        if batch.is_empty() {
            return;
        }
        match self.store_until_durable(&arrivals, stop).await {
            Stored::Durable => acknowledge(batch).await,
            // Dropped, the events are delivered again.
            Stored::Stopped => {}
            Stored::Refused(error) if batch.len() == 1 => {
                // The parser let something through that the database does not take.
                self.metrics.dead_letters(1);
                let reason = format!("the database refuses it: {}", sql_state(&error));
                park(batch.into_iter().map(|received| (received, reason.clone()))).await;
            }
            Stored::Refused(_) => {
                // One of them is the culprit: one at a time, so that it spoils no other.
                for (received, arrival) in batch.into_iter().zip(arrivals) {
                    Box::pin(self.store_and_acknowledge(vec![received], vec![arrival], stop)).await;
                }
            }
        }
    }

    /// Stores the batch, again and again while the database is away. Nothing is acknowledged meanwhile.
    async fn store_until_durable(&self, arrivals: &[Arrival], stop: &CancellationToken) -> Stored {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        loop {
            match self.store(arrivals).await {
                Ok(()) => return Stored::Durable,
                Err(error) if is_permanent(&error) => return Stored::Refused(error),
                Err(error) => {
                    let delay = backoff.next_delay();
                    let code = sql_state(&error);
                    tracing::warn!(%code, ?delay, "events cannot be stored; trying again");
                    tokio::select! {
                        () = stop.cancelled() => return Stored::Stopped,
                        () = tokio::time::sleep(delay) => {}
                    }
                }
            }
        }
    }

    async fn store(&self, arrivals: &[Arrival]) -> Result<(), sqlx::Error> {
        let event_ids: Vec<_> = arrivals.iter().map(|(event_id, _)| *event_id).collect();
        let mut transaction = begin(&self.pool, Scope::Platform).await?;
        let mut new = inbox_insert(&mut transaction, &event_ids).await?;
        let mut requests = Vec::new();
        let mut revocations = Vec::new();
        for (event_id, command) in arrivals {
            // `remove`, because an event may be in the batch twice.
            match command {
                _ if !new.remove(event_id) => {}
                Command::Send(request) => requests.push(MailRequest::clone(request)),
                Command::Revoke(revocation) => revocations.push(*revocation),
            }
        }
        if !revocations.is_empty() {
            revocations_insert(&mut transaction, &revocations).await?;
        }
        let mut changes = Vec::new();
        if !requests.is_empty() {
            let (arrivals, revoked) = self.insert_requests(&mut transaction, &requests).await?;
            changes.extend(arrivals);
            revocations.extend(revoked);
        }
        if !revocations.is_empty() {
            changes.extend(deliveries_cancel_revoked(&mut transaction, &revocations).await?);
        }
        let states: Vec<_> = changes.iter().map(|change| change.state).collect();
        outbox::add(&mut transaction, delivery_changed(changes)).await?;
        transaction.commit().await?;

        self.outbox.notify();
        self.due.notify();
        self.metrics.states(states);
        Ok(())
    }

    /// Inserts what is new and reserves its slots. Returns the changes, and what was revoked before it came.
    async fn insert_requests(
        &self,
        connection: &mut PgConnection,
        requests: &[MailRequest],
    ) -> Result<(Vec<DeliveryChange>, Vec<Revocation>), sqlx::Error> {
        let new = deliveries_insert(connection, requests).await?;
        // A revoked email takes no slot from the others.
        let (revoked, live): (Vec<_>, Vec<_>) =
            new.into_iter().partition(|delivery| delivery.revoked);
        let limits: Vec<_> = live
            .iter()
            .map(|delivery| self.limits.of(&requests[delivery.index]))
            .collect();
        let slots = throttles_reserve(connection, &limits).await?;
        let throttled: Vec<_> = live
            .iter()
            .zip(&slots)
            .filter_map(|(delivery, slot)| Some((delivery.delivery_id, (*slot)?)))
            .collect();
        deliveries_throttle(connection, &throttled).await?;

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
            .map(|delivery| revocation(requests, delivery))
            .collect();
        Ok((changes, revoked))
    }
}

/// How an attempt to store a batch ended.
enum Stored {
    /// It is committed.
    Durable,
    /// The service stops before the database came back.
    Stopped,
    /// The database refuses it, and would again.
    Refused(sqlx::Error),
}

fn revocation(requests: &[MailRequest], delivery: &NewDelivery) -> Revocation {
    let request = &requests[delivery.index];
    Revocation {
        organization_id: request.organization_id,
        invitation_id: request.invitation_id,
        send_number: request.send_number,
    }
}

async fn acknowledge(batch: Vec<Received>) {
    for result in join_all(batch.into_iter().map(Received::ack)).await {
        if let Err(error) = result {
            // It comes again, and the inbox drops it.
            tracing::debug!(%error, "acknowledgement lost");
        }
    }
}

async fn park(batch: impl IntoIterator<Item = (Received, String)>) {
    let parked = batch
        .into_iter()
        .map(|(received, reason)| async move { received.dead_letter(&reason).await });
    for result in join_all(parked).await {
        if let Err(error) = result {
            tracing::warn!(%error, "event not parked; it comes again");
        }
    }
}

/// Whether the same statement with the same values would fail again: data exceptions and violated
/// constraints (PostgreSQL, appendix A).
fn is_permanent(error: &sqlx::Error) -> bool {
    let state = sql_state(error);
    state.starts_with("22") || state.starts_with("23")
}

fn sql_state(error: &sqlx::Error) -> String {
    error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .unwrap_or_default()
        .into_owned()
}
