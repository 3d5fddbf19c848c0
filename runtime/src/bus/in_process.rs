//! The stand-in for RabbitMQ inside one process. It stores nothing: whoever publishes waits for the consumer.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use usher_proto::topology::{self, Queue};

use super::{Message, PublishError, Received};

/// How long `publish` waits, each time, for one more acknowledgement.
const ACK_TIMEOUT: Duration = Duration::from_secs(10);

/// Dead letters that are kept for a subscription to their queue; the oldest go first.
const MAX_DEAD_LETTERS: usize = 1_000;

#[derive(Clone, Default)]
pub(super) struct InProcess(Arc<Hub>);

#[derive(Default)]
struct Hub {
    closed: AtomicBool,
    queues: Mutex<HashMap<&'static str, Arc<Waiting>>>,
}

/// What waits in one queue.
#[derive(Default)]
struct Waiting {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    entries: VecDeque<Entry>,
    subscriptions: usize,
    /// The consumer left. Before the first one came, events wait for it; afterwards they fail at once.
    deserted: bool,
}

struct Entry {
    message: Message,
    /// Tells the publisher. None for a dead letter, which nobody waits for.
    acked: Option<oneshot::Sender<()>>,
    /// For a dead letter, why it is one.
    reason: Option<String>,
}

impl Entry {
    fn is_abandoned(&self) -> bool {
        self.acked.as_ref().is_some_and(oneshot::Sender::is_closed)
    }
}

impl InProcess {
    pub(super) async fn publish(&self, batch: &[Message]) -> Vec<Result<(), PublishError>> {
        if self.is_closed() {
            return vec![Err(PublishError::Closed); batch.len()];
        }
        // Everything is handed over before the first wait, so that a consumer sees whole batches.
        let pending: Vec<_> = batch
            .iter()
            .map(|message| message.check().map(|()| self.offer(message)))
            .collect();
        let mut patience = ACK_TIMEOUT;
        let mut results = Vec::with_capacity(batch.len());
        for offered in pending {
            let mut result = offered.as_ref().map(|_| ()).map_err(|error| *error);
            for ack in offered.into_iter().flatten() {
                let ack = match tokio::time::timeout(patience, ack).await {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(_)) if self.is_closed() => Err(PublishError::Closed),
                    Ok(Err(_)) => Err(PublishError::Disconnected),
                    Err(_) => {
                        // One pause of that length is enough; what is acknowledged by now still counts.
                        patience = Duration::ZERO;
                        Err(PublishError::Unconfirmed)
                    }
                };
                result = result.and(ack);
            }
            results.push(result);
        }
        results
    }

    /// Puts the message into every queue that is bound for it; one acknowledgement to wait for from each.
    fn offer(&self, message: &Message) -> Vec<oneshot::Receiver<()>> {
        topology::QUEUES
            .iter()
            .filter(|queue| queue.routing_keys.contains(&message.event_type.as_str()))
            .map(|queue| {
                let (acked, ack) = oneshot::channel();
                self.queue(queue.name).push(Entry {
                    message: message.clone(),
                    acked: Some(acked),
                    reason: None,
                });
                ack
            })
            .collect()
    }

    pub(super) fn subscribe(&self, queue: Queue) -> Subscription {
        let waiting = self.queue(queue.name);
        let mut state = waiting.lock();
        state.subscriptions += 1;
        state.deserted = false;
        drop(state);
        Subscription {
            queue,
            waiting,
            dead_letters: self.queue(queue.dead_letter_queue),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::Acquire)
    }

    pub(super) async fn connected(&self) {
        if self.is_closed() {
            std::future::pending::<()>().await;
        }
    }

    pub(super) fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
        for queue in lock(&self.0.queues).values() {
            queue.lock().desert();
        }
    }

    fn queue(&self, name: &'static str) -> Arc<Waiting> {
        Arc::clone(lock(&self.0.queues).entry(name).or_default())
    }
}

impl State {
    /// Nobody will come for the events: their publishers need not wait for the timeout. Dead letters stay.
    fn desert(&mut self) {
        self.deserted = true;
        self.entries.retain(|entry| entry.acked.is_none());
    }
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn push(&self, entry: Entry) {
        let mut state = self.lock();
        if state.deserted && entry.acked.is_some() {
            return; // Dropping the sender tells the publisher.
        }
        // Whoever gave up waiting publishes again; without this, a queue without consumer would grow.
        while state.entries.front().is_some_and(Entry::is_abandoned) {
            state.entries.pop_front();
        }
        if entry.acked.is_none() && state.entries.len() >= MAX_DEAD_LETTERS {
            state.entries.pop_front();
        }
        state.entries.push_back(entry);
        drop(state);
        self.changed.notify_one();
    }

    /// Up to `max` entries, oldest first; empty if there are none.
    fn take(&self, max: usize) -> Vec<Entry> {
        let mut state = self.lock();
        state.entries.retain(|entry| !entry.is_abandoned());
        let count = max.max(1).min(state.entries.len());
        let taken = state.entries.drain(..count).collect();
        if !state.entries.is_empty() {
            // One notification stands for many entries: pass it on to another subscription.
            self.changed.notify_one();
        }
        taken
    }
}

pub(super) struct Subscription {
    queue: Queue,
    waiting: Arc<Waiting>,
    dead_letters: Arc<Waiting>,
}

impl Subscription {
    pub(super) async fn next_batch(&mut self, max: usize) -> Vec<Received> {
        loop {
            let taken = self.waiting.take(max);
            if !taken.is_empty() {
                return taken.into_iter().map(|entry| self.receive(entry)).collect();
            }
            self.waiting.changed.notified().await;
        }
    }

    fn receive(&self, entry: Entry) -> Received {
        Received {
            message: entry.message.clone(),
            dead_letter_reason: entry.reason.clone(),
            receipt: super::Receipt::InProcess(Receipt {
                entry: Some(entry),
                queue: self.queue,
                waiting: Arc::clone(&self.waiting),
                dead_letters: Arc::clone(&self.dead_letters),
            }),
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut state = self.waiting.lock();
        state.subscriptions -= 1;
        if state.subscriptions == 0 {
            state.desert();
        }
    }
}

pub(super) struct Receipt {
    /// Taken by the acknowledgement; still here in `drop`, the entry goes back.
    entry: Option<Entry>,
    queue: Queue,
    waiting: Arc<Waiting>,
    dead_letters: Arc<Waiting>,
}

impl Receipt {
    pub(super) fn ack(mut self) {
        if let Some(acked) = self.entry.take().and_then(|entry| entry.acked) {
            // Fails if the publisher has given up. It publishes again; the consumer knows the id by then.
            let _ = acked.send(());
        }
    }

    pub(super) fn dead_letter(mut self, reason: String) {
        let Some(entry) = self.entry.take() else {
            return;
        };
        super::record_parked(&entry.message, self.queue, &reason);
        self.dead_letters.push(Entry {
            message: entry.message,
            acked: None,
            reason: Some(reason),
        });
        if let Some(acked) = entry.acked {
            let _ = acked.send(());
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            self.waiting.push(entry);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that panics runs under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
