//! Moves events from an outbox table to the bus: claim, publish, delete what is confirmed.
//!
//! An event is deleted only after the bus has confirmed it, so a process that dies between the two
//! publishes it twice and never loses it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry::metrics::{Counter, Histogram};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::backoff::{Backoff, jittered};
use crate::bus::{EventBus, Message, PublishError};

/// Events that are claimed at a time: several times the confirms that the bus keeps outstanding, as the end
/// of every batch waits for the last of them.
const BATCH: i64 = 2_000;

/// How often the outbox is looked at without being woken: events that another replica left, or whose
/// lease ran out.
const POLL: Duration = Duration::from_secs(1);

/// How long the relay goes on after the stop signal to empty the outbox.
const DRAIN: Duration = Duration::from_secs(10);

/// The outbox table of a service.
pub trait OutboxStore: Send + Sync + 'static {
    /// Takes up to `limit` events, oldest first, under a lease: until it runs out or is released, no other
    /// call returns them. The lease outlasts the publishing of a batch (a minute is ample).
    fn claim(&self, limit: i64) -> impl Future<Output = Result<Vec<Message>, sqlx::Error>> + Send;

    /// Forgets events that the bus has confirmed.
    fn delete(&self, event_ids: &[Uuid]) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Ends the lease of events that were not confirmed, for another try.
    fn release(&self, event_ids: &[Uuid]) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
}

/// Tells the relay of this process that a transaction with events has committed.
#[derive(Debug, Clone, Default)]
pub struct Wake(Arc<Notify>);

impl Wake {
    /// Call after the commit. Cheap; many calls are as good as one.
    pub fn notify(&self) {
        self.0.notify_one();
    }
}

/// Relays until `stop`, then for at most ten seconds more until the outbox is empty. Survives failures of
/// database and bus, which it logs once per change. Any number of replicas may run at a time.
pub async fn run(store: impl OutboxStore, bus: EventBus, wake: Wake, stop: CancellationToken) {
    let mut relay = Relay {
        store,
        bus,
        metrics: Metrics::new(),
        failing_since: None,
    };
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    loop {
        // Claiming what cannot be published would only write to the database.
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = relay.bus.connected() => {}
        }
        let pause = match relay.pass().await {
            Pass::Full => {
                backoff.reset();
                continue;
            }
            Pass::Done | Pass::Empty => {
                backoff.reset();
                tokio::select! {
                    () = wake.0.notified() => continue,
                    () = stop.cancelled() => break,
                    () = tokio::time::sleep(jittered(POLL)) => continue,
                }
            }
            // No wake-up here: new events must not turn the backoff into a busy loop.
            Pass::Failed => backoff.next_delay(),
        };
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(pause) => {}
        }
    }
    relay.drain().await;
}

struct Relay<S> {
    store: S,
    bus: EventBus,
    metrics: Metrics,
    /// Set while passes fail, so that the log tells of changes only.
    failing_since: Option<Instant>,
}

/// How one pass ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// A full batch went out: there may be more.
    Full,
    /// Less than a full batch went out.
    Done,
    /// There was nothing to do.
    Empty,
    /// Something was left behind.
    Failed,
}

impl<S: OutboxStore> Relay<S> {
    async fn drain(&mut self) {
        if !self.bus.is_connected() {
            return;
        }
        let emptied = tokio::time::timeout(DRAIN, async {
            while matches!(self.pass().await, Pass::Full | Pass::Done) {}
        });
        if emptied.await.is_err() {
            tracing::warn!("outbox not empty at the end; its events go out after the next start");
        }
    }

    async fn pass(&mut self) -> Pass {
        match self.relay_batch().await {
            Ok(pass) => {
                self.log_success();
                pass
            }
            Err(error) => {
                self.log_failure(&error);
                Pass::Failed
            }
        }
    }

    async fn relay_batch(&self) -> Result<Pass, RelayError> {
        let mut batch = self.store.claim(BATCH).await?;
        if batch.is_empty() {
            return Ok(Pass::Empty);
        }
        let started = Instant::now();
        let spans: Vec<_> = batch
            .iter_mut()
            .filter_map(Message::producer_span)
            .collect();
        let results = self.bus.publish(&batch).await;
        drop(spans);

        let mut confirmed = Vec::with_capacity(batch.len());
        let mut unconfirmed = Vec::new();
        let mut failure = None;
        for (message, result) in batch.iter().zip(results) {
            match result {
                Ok(()) => confirmed.push(message.event_id),
                Err(error) => {
                    unconfirmed.push(message.event_id);
                    failure = Some(error);
                }
            }
        }
        self.metrics
            .record(confirmed.len(), unconfirmed.len(), started.elapsed());
        if !confirmed.is_empty() {
            self.store.delete(&confirmed).await?;
        }
        if let Some(error) = failure {
            self.store.release(&unconfirmed).await?;
            return Err(error.into());
        }
        let full = i64::try_from(batch.len()).is_ok_and(|count| count >= BATCH);
        Ok(if full { Pass::Full } else { Pass::Done })
    }

    fn log_success(&mut self) {
        if let Some(since) = self.failing_since.take() {
            let seconds = since.elapsed().as_secs();
            tracing::info!(seconds, "events leave the outbox again");
        }
    }

    fn log_failure(&mut self, error: &RelayError) {
        if self.failing_since.is_none() {
            self.failing_since = Some(Instant::now());
            tracing::warn!(%error, "events stay in the outbox; trying again until they leave");
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum RelayError {
    #[error("outbox table: {0}")]
    Store(#[from] sqlx::Error),
    #[error("event bus: {0}")]
    Publish(#[from] PublishError),
}

struct Metrics {
    published: Counter<u64>,
    failed: Counter<u64>,
    batch_seconds: Histogram<f64>,
}

impl Metrics {
    fn new() -> Self {
        let meter = opentelemetry::global::meter("usher");
        Self {
            published: meter
                .u64_counter("usher.outbox.published")
                .with_description("Events that the bus has confirmed.")
                .build(),
            failed: meter
                .u64_counter("usher.outbox.failed")
                .with_description("Attempts to publish an event that were not confirmed.")
                .build(),
            batch_seconds: meter
                .f64_histogram("usher.outbox.batch.duration")
                .with_description("Time from the first publish of a batch to its last confirm.")
                .with_unit("s")
                .build(),
        }
    }

    fn record(&self, confirmed: usize, unconfirmed: usize, elapsed: Duration) {
        self.published.add(confirmed as u64, &[]);
        self.failed.add(unconfirmed as u64, &[]);
        self.batch_seconds.record(elapsed.as_secs_f64(), &[]);
    }
}
