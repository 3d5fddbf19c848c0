//! Moves events from the outbox to the bus. Each batch is one transaction: claim, publish, delete what is
//! confirmed.
//!
//! An event is deleted only after the bus has confirmed it, so a process that dies between the two publishes it
//! twice and never loses it. Until then its row is locked by the transaction, which no other relay waits for, and
//! which ends with the process. Under load there are two such transactions at a time: while one waits for its last
//! confirms, deletes its batch and claims the next, the other publishes.

use std::time::{Duration, Instant};

use opentelemetry::metrics::{Counter, Histogram};
use sqlx::PgPool;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::backoff::{Backoff, jittered};
use crate::bus::{EventBus, Message, PublishError};
use crate::database::{Scope, Tx, begin, within, without_data};
use crate::outbox;
use crate::wake::Wake;

/// Events that are claimed at a time: several times the confirms that the bus keeps outstanding, as the end
/// of every batch waits for the last of them.
const BATCH: i64 = 2_000;

/// Bytes of payload after which a batch takes no more events: bounds the memory of a relay, which holds two.
const BATCH_BYTES: i64 = 4 * 1024 * 1024;

/// How often the outbox is looked at without being woken: events that another replica left.
const POLL: Duration = Duration::from_secs(1);

/// Longest time of one step in the database; a database that takes longer counts as away.
const DATABASE_DEADLINE: Duration = Duration::from_secs(10);

/// How often the log tells that events are refused.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_mins(1);

/// Longest time in which a batch is published. What is not confirmed by then goes out later. Shorter than
/// the `idle_in_transaction_session_timeout` of a connection.
const PUBLISH_DEADLINE: Duration = Duration::from_secs(30);

/// How long the relay goes on after the stop signal to empty the outbox. What is being published then goes out
/// from another replica or after the next start.
const DRAIN: Duration = Duration::from_secs(10);

/// Relays until `stop`, then for at most ten seconds more until the outbox is empty. Survives failures of
/// database and bus, which it logs once per change. Any number of replicas may run at a time.
pub async fn run(pool: PgPool, bus: EventBus, wake: Wake, stop: CancellationToken) {
    let more = Wake::default();
    let relay = || Relay {
        pool: pool.clone(),
        bus: bus.clone(),
        more: more.clone(),
        metrics: Metrics::new(),
        failing_since: None,
        refusal_logged: None,
    };
    let (first, second) = (relay(), relay());
    tokio::join!(
        first.run(&wake, POLL, &stop),
        second.run(&more, IDLE, &stop)
    );
}

/// For the second transaction, which has work only when it is woken.
const IDLE: Duration = Duration::from_hours(1);

/// What one of the two transactions at a time needs.
struct Relay {
    pool: PgPool,
    bus: EventBus,
    /// Wakes the second transaction: a batch was full.
    more: Wake,
    metrics: Metrics,
    /// Set while passes fail, so that the log tells of changes only.
    failing_since: Option<Instant>,
    /// When the log told last that events are refused.
    refusal_logged: Option<Instant>,
}

/// Events of the outbox, with the transaction that holds them.
struct Batch {
    tx: Tx,
    messages: Vec<Message>,
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
    /// Nothing can go out: the bus or the database is away.
    Failed,
}

impl Relay {
    /// Relays when it is woken and at each `poll`, until `stop`.
    async fn run(mut self, wake: &Wake, poll: Duration, stop: &CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        loop {
            // Claiming what cannot be published would only write to the database.
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.bus.connected() => {}
            }
            let pause = match self.pass(PUBLISH_DEADLINE).await {
                Pass::Full => {
                    backoff.reset();
                    continue;
                }
                Pass::Done | Pass::Empty => {
                    backoff.reset();
                    tokio::select! {
                        () = wake.notified() => continue,
                        () = stop.cancelled() => break,
                        () = tokio::time::sleep(jittered(poll)) => continue,
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
        self.drain().await;
    }

    async fn drain(&mut self) {
        if !self.bus.is_connected() {
            return;
        }
        let started = Instant::now();
        loop {
            let left = DRAIN.saturating_sub(started.elapsed());
            if left.is_zero() {
                tracing::warn!(
                    "outbox not empty at the end; its events go out after the next start"
                );
                return;
            }
            if !matches!(self.pass(left).await, Pass::Full | Pass::Done) {
                return;
            }
        }
    }

    async fn pass(&mut self, publish_deadline: Duration) -> Pass {
        match self.relay_batch(publish_deadline).await {
            Ok(Pass::Empty) => Pass::Empty,
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

    async fn relay_batch(&mut self, publish_deadline: Duration) -> Result<Pass, RelayError> {
        let mut batch = self.claim().await?;
        if batch.messages.is_empty() {
            return Ok(Pass::Empty);
        }
        let is_full = is_full(&batch.messages);
        if is_full {
            self.more.notify();
        }
        let started = Instant::now();
        let messages = &mut batch.messages;
        let spans: Vec<_> = messages
            .iter_mut()
            .filter_map(Message::producer_span)
            .collect();
        let results = timeout(publish_deadline, self.bus.publish(messages))
            .await
            .unwrap_or_else(|_| vec![Err(PublishError::Unconfirmed); messages.len()]);
        drop(spans);

        let mut confirmed = Vec::with_capacity(messages.len());
        let mut refused = Vec::new();
        let (mut refusal, mut outage) = (None, None);
        for (message, result) in messages.iter().zip(results) {
            match result {
                Ok(()) => confirmed.push(message.event_id),
                Err(error) if error.is_refusal() => {
                    refused.push(message.event_id);
                    refusal = Some(error);
                }
                Err(error) => outage = Some(error),
            }
        }
        self.metrics
            .record(confirmed.len(), messages.len(), started.elapsed());
        finish(batch.tx, &confirmed, &refused).await?;
        if let Some(error) = refusal {
            self.log_refusal(refused.len(), error);
        }
        if let Some(error) = outage {
            return Err(error.into());
        }
        Ok(if is_full { Pass::Full } else { Pass::Done })
    }

    async fn claim(&self) -> Result<Batch, RelayError> {
        within(DATABASE_DEADLINE, async {
            let mut tx = begin(&self.pool, Scope::Platform).await?;
            let messages = outbox::claim(&mut tx, BATCH, BATCH_BYTES).await?;
            Ok(Batch { tx, messages })
        })
        .await
    }

    fn log_refusal(&mut self, count: usize, error: PublishError) {
        let is_due = |logged: Instant| logged.elapsed() >= REFUSAL_LOG_INTERVAL;
        if self.refusal_logged.is_none_or(is_due) {
            self.refusal_logged = Some(Instant::now());
            tracing::warn!(count, %error, "events are refused; each is tried again later");
        }
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

/// Deletes what was confirmed, puts off what was refused, and lets go of the rest, which can be claimed at once.
async fn finish(mut tx: Tx, confirmed: &[Uuid], refused: &[Uuid]) -> Result<(), RelayError> {
    within(DATABASE_DEADLINE, async {
        if !confirmed.is_empty() {
            outbox::delete(&mut tx, confirmed).await?;
        }
        if !refused.is_empty() {
            outbox::put_off(&mut tx, refused).await?;
        }
        tx.commit().await?;
        Ok(())
    })
    .await
}

/// Whether the claim stopped at one of its bounds, so that there may be more.
fn is_full(batch: &[Message]) -> bool {
    let bytes: usize = batch.iter().map(|message| message.body.len()).sum();
    let reached = |count: usize, bound: i64| i64::try_from(count).is_ok_and(|count| count >= bound);
    reached(batch.len(), BATCH) || reached(bytes, BATCH_BYTES)
}

#[derive(Debug, thiserror::Error)]
enum RelayError {
    #[error("outbox table: {}", without_data(.0))]
    Database(#[from] sqlx::Error),
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

    fn record(&self, confirmed: usize, events: usize, elapsed: Duration) {
        self.published.add(confirmed as u64, &[]);
        self.failed.add((events - confirmed) as u64, &[]);
        self.batch_seconds.record(elapsed.as_secs_f64(), &[]);
    }
}
