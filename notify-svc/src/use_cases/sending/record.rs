//! Writes marks and outcomes for many emails at once.

use std::time::Duration;

use sqlx::PgPool;
use usher_runtime::{
    backoff::Backoff,
    database::{Scope, begin, within, without_data},
    outbox,
    wake::Wake,
};
use uuid::Uuid;

use super::{DATABASE_DEADLINE, Sender, batch::Batcher};
use crate::{
    db::{
        delivery::{self, Claim, Mark, Outcome},
        suppression,
    },
    domain::{DeliveryState, RecipientLimits},
    events,
    metrics::Metrics,
    use_cases::recipient_throttle,
};

/// Records outcomes.
#[derive(Clone)]
pub(super) struct Recorder(Batcher<(Claim, Outcome), ()>);

impl Recorder {
    pub(super) fn new<T>(sender: &Sender<T>) -> Self {
        let record = Record {
            pool: sender.pool.clone(),
            recipient_limits: sender.settings.recipient_limits,
            metrics: sender.metrics.clone(),
            due: sender.due.clone(),
            outbox: sender.outbox.clone(),
        };
        Self(Batcher::spawn(move |outcomes: Vec<(Claim, Outcome)>| {
            let record = record.clone();
            async move {
                record.until_durable(&outcomes).await;
                outcomes.into_iter().map(|_| ()).collect()
            }
        }))
    }

    /// Returns when the outcome is durable.
    pub(super) async fn record(&self, claim: Claim, outcome: Outcome) {
        // Without an answer the process is ending, or recording this outcome panics: the lease will run out.
        let _ = self.0.submit((claim, outcome)).await;
    }
}

/// What recording needs.
#[derive(Clone)]
struct Record {
    pool: PgPool,
    recipient_limits: RecipientLimits,
    metrics: Metrics,
    due: Wake,
    outbox: Wake,
}

impl Record {
    /// What a relay answered cannot be asked again: it is recorded as soon as the database is back.
    async fn until_durable(&self, outcomes: &[(Claim, Outcome)]) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        while let Err(error) = within(DATABASE_DEADLINE, self.record(outcomes)).await {
            let error = without_data(&error);
            tracing::warn!(error, "outcomes cannot be recorded; trying again");
            tokio::time::sleep(backoff.next_delay()).await;
        }
        self.outbox.notify();
    }

    async fn record(&self, outcomes: &[(Claim, Outcome)]) -> Result<(), sqlx::Error> {
        let mut tx = begin(&self.pool, Scope::Platform).await?;
        let mut outcomes = outcomes.to_vec();
        let Some(now) = delivery::lock_held(&mut tx, &mut outcomes).await? else {
            return Ok(());
        };
        for (claim, outcome) in &mut outcomes {
            // Its slot has come; what it waits for now is the relay.
            outcome.publish |= claim.state == DeliveryState::Throttled;
        }
        let limits = &self.recipient_limits;
        let moved = recipient_throttle::settle(&mut tx, limits, now, &mut outcomes).await?;
        let are_moved = !moved.is_empty();
        let recorded = delivery::record(&mut tx, &outcomes).await?;
        suppression::insert(&mut tx, &outcomes).await?;
        let changes: Vec<_> = recorded.into_iter().chain(moved).collect();
        let states: Vec<_> = changes.iter().map(|change| change.state).collect();
        let events = changes.into_iter().map(events::delivery_changed).collect();
        outbox::add(&mut tx, events).await?;
        tx.commit().await?;
        self.metrics.states(states);
        if are_moved {
            self.due.notify();
        }
        Ok(())
    }
}

/// Marks emails that are about to be handed over.
#[derive(Clone)]
pub(super) struct Marker(Batcher<(Uuid, Uuid), Mark>);

impl Marker {
    pub(super) fn new(pool: PgPool, lease: Duration) -> Self {
        Self(Batcher::spawn(move |claims: Vec<(Uuid, Uuid)>| {
            let pool = pool.clone();
            async move {
                within(DATABASE_DEADLINE, mark(&pool, &claims, lease))
                    .await
                    .unwrap_or_else(|error| {
                        let error = without_data(&error);
                        tracing::warn!(error, "emails cannot be marked; they go back to the queue");
                        Vec::new()
                    })
            }
        }))
    }

    /// Marks an email; `None` if the database is away.
    pub(super) async fn mark(&self, claim: &Claim) -> Option<Mark> {
        self.0.submit((claim.delivery_id, claim.lease_token)).await
    }
}

async fn mark(
    pool: &PgPool,
    claims: &[(Uuid, Uuid)],
    lease: Duration,
) -> Result<Vec<Mark>, sqlx::Error> {
    let mut tx = begin(pool, Scope::Platform).await?;
    let marks = delivery::mark(&mut tx, claims, lease).await?;
    tx.commit().await?;
    Ok(marks)
}
