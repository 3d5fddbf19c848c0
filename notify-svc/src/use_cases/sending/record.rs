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

use super::{DATABASE_DEADLINE, batch::Batcher};
use crate::{
    db::{
        delivery::{self, Claim, Mark, Outcome},
        suppression,
    },
    events,
    metrics::Metrics,
};

/// Records outcomes.
#[derive(Clone)]
pub(super) struct Recorder(Batcher<(Claim, Outcome), ()>);

impl Recorder {
    pub(super) fn new(pool: PgPool, outbox: Wake, metrics: Metrics) -> Self {
        Self(Batcher::spawn(move |outcomes: Vec<(Claim, Outcome)>| {
            let (pool, outbox, metrics) = (pool.clone(), outbox.clone(), metrics.clone());
            async move {
                record_until_durable(&pool, &metrics, &outcomes).await;
                outbox.notify();
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

/// What a relay answered cannot be asked again: it is recorded as soon as the database is back.
async fn record_until_durable(pool: &PgPool, metrics: &Metrics, outcomes: &[(Claim, Outcome)]) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    while let Err(error) = within(DATABASE_DEADLINE, record(pool, metrics, outcomes)).await {
        let error = without_data(&error);
        tracing::warn!(error, "outcomes cannot be recorded; trying again");
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

async fn record(
    pool: &PgPool,
    metrics: &Metrics,
    outcomes: &[(Claim, Outcome)],
) -> Result<(), sqlx::Error> {
    let mut tx = begin(pool, Scope::Platform).await?;
    let changes = delivery::record(&mut tx, outcomes).await?;
    suppression::insert(&mut tx, outcomes).await?;
    let states: Vec<_> = changes.iter().map(|change| change.state).collect();
    outbox::add(
        &mut tx,
        changes.into_iter().map(events::delivery_changed).collect(),
    )
    .await?;
    tx.commit().await?;
    metrics.states(states);
    Ok(())
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
