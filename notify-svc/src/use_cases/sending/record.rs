//! Records what became of emails, many at once: while one batch is written, the next one fills.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::FutureExt as _;
use sqlx::PgPool;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use usher_runtime::{
    backoff::Backoff,
    database::{Scope, begin, within, without_data},
    outbox,
    wake::Wake,
};

use super::{DATABASE_DEADLINE, Due, Sender, leases::Leases};
use crate::{
    db::{
        delivery::{self, Claim, Outcome},
        suppression,
    },
    domain::{DeliveryState, RecipientLimits},
    events,
    metrics::Metrics,
    use_cases::recipient_throttle,
};

/// Most outcomes of a batch, and most that wait for one.
const BATCH: usize = 256;

/// An outcome, and who waits until it is recorded.
type HandedIn = ((Claim, Outcome), oneshot::Sender<()>);

/// Where outcomes are handed in. Clones share the batches; recording ends when the last one is dropped.
#[derive(Clone)]
pub(super) struct Recorder {
    outcomes: mpsc::Sender<HandedIn>,
    failing: Arc<AtomicBool>,
}

impl Recorder {
    /// Begins to record; the task ends when all is recorded and the recorder is dropped.
    pub(super) fn spawn<T>(
        sender: &Sender<T>,
        relay: &str,
        leases: Leases,
    ) -> (Self, JoinHandle<()>) {
        let (outcomes, mut handed_in) = mpsc::channel::<HandedIn>(BATCH);
        let recorder = Self {
            outcomes,
            failing: Arc::default(),
        };
        let record = Record {
            pool: sender.pool.clone(),
            relay: relay.to_owned(),
            recipient_limits: sender.settings.recipient_limits,
            metrics: sender.metrics.clone(),
            due: sender.due.clone(),
            outbox: sender.outbox.clone(),
            failing: Arc::clone(&recorder.failing),
            leases,
        };
        let recording = tokio::spawn(async move {
            let mut batch = Vec::new();
            while handed_in.recv_many(&mut batch, BATCH).await > 0 {
                let (outcomes, waiting): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
                record.all(outcomes).await;
                // Dropped, it tells them.
                drop(waiting);
            }
        });
        (recorder, recording)
    }

    /// Hands an outcome in; it is recorded in the background. What is answered is for [`Self::recorded`].
    pub(super) async fn record(
        &self,
        claim: Claim,
        outcome: Outcome,
    ) -> Option<oneshot::Receiver<()>> {
        let (waiting, recorded) = oneshot::channel();
        // An error means that the process is ending: the lease will run out.
        let sent = self.outcomes.send(((claim, outcome), waiting)).await;
        sent.is_ok().then_some(recorded)
    }

    /// Waits until an outcome is recorded.
    pub(super) async fn recorded(outcome: oneshot::Receiver<()>) {
        // The other end says nothing: it is dropped.
        let _ = outcome.await;
    }

    /// Whether outcomes cannot be recorded at present: then nothing more should be handed over.
    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }
}

/// What recording needs.
struct Record {
    pool: PgPool,
    relay: String,
    recipient_limits: RecipientLimits,
    metrics: Metrics,
    due: Due,
    outbox: Wake,
    failing: Arc<AtomicBool>,
    leases: Leases,
}

impl Record {
    /// Records a batch; if that panics, one by one, so that only the outcome at fault is lost. Nobody else records: this
    /// must not end.
    async fn all(&self, outcomes: Vec<(Claim, Outcome)>) {
        if self.unless_it_panics(&outcomes).await {
            return;
        }
        for outcome in outcomes {
            self.unless_it_panics(&[outcome]).await;
        }
    }

    async fn unless_it_panics(&self, outcomes: &[(Claim, Outcome)]) -> bool {
        let recorded = AssertUnwindSafe(self.until_durable(outcomes))
            .catch_unwind()
            .await;
        if recorded.is_err() {
            // The payload of a panic may hold anything; the panic hook has told where it was.
            tracing::error!(count = outcomes.len(), "recording outcomes panicked");
        }
        recorded.is_ok()
    }

    /// What a relay answered cannot be asked again: it is recorded as soon as the database is back.
    async fn until_durable(&self, outcomes: &[(Claim, Outcome)]) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        while let Err(error) = within(DATABASE_DEADLINE, self.record(outcomes)).await {
            self.failing.store(true, Ordering::Relaxed);
            let error = without_data(&error);
            tracing::warn!(error, "outcomes cannot be recorded; trying again");
            tokio::time::sleep(backoff.next_delay()).await;
        }
        self.leases.release(outcomes.iter().map(|(claim, _)| claim));
        self.outbox.notify();
        if self.failing.swap(false, Ordering::Relaxed) {
            self.due.ready.notify();
        }
        if outcomes.iter().any(|(_, outcome)| outcome.next.is_some()) {
            self.due.scheduled.notify();
        }
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
        let recorded = delivery::record(&mut tx, &outcomes, &self.relay).await?;
        suppression::insert(&mut tx, &outcomes).await?;
        let changes: Vec<_> = recorded.into_iter().chain(moved).collect();
        let states: Vec<_> = changes.iter().map(|change| change.state).collect();
        let events = changes.into_iter().map(events::delivery_changed).collect();
        outbox::add(&mut tx, events).await?;
        tx.commit().await?;
        self.metrics.states(states);
        if are_moved {
            self.due.scheduled.notify();
        }
        Ok(())
    }
}
