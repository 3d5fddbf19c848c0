//! One loop for everything that consumes events: in batches, each event once in effect, and acknowledged only
//! when what it asks for is durable.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use usher_proto::topology::Queue;

use crate::{
    backoff::Backoff,
    bus::{EventBus, Received, Subscription},
    database::{is_permanent, within, without_data},
    event::ReceivedEvent,
};

/// Events that are stored by one transaction.
const BATCH: usize = 200;

/// Longest time in which a batch is stored. A database that takes longer counts as away.
const STORE_DEADLINE: Duration = Duration::from_secs(20);

/// What a service does with the events of one queue.
pub trait EventHandler: Send + Sync {
    /// The queue.
    const QUEUE: Queue;

    /// What an event asks for.
    type Command: Send + Sync;

    /// Reads an event, in its span; `Ok(None)` if there is nothing to do. Its envelope was checked. If it panics,
    /// the event is parked.
    ///
    /// # Errors
    /// If this version can never handle it: it is parked with the reason, which holds no personal data.
    fn decode(&self, event: ReceivedEvent) -> Result<Option<Self::Command>, String>;

    /// Does what the events ask for, in one transaction. An event may come again, also in the same batch, and a
    /// batch again in parts: a repetition changes nothing.
    ///
    /// # Errors
    /// If the database fails. On [permanent](is_permanent) errors the batch is stored one by one, and the event
    /// at fault is parked; on others it is stored again until it is durable.
    fn store(
        &self,
        commands: &[Self::Command],
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
}

/// Consumes events until `stop`. What is not acknowledged by then is delivered again.
pub async fn run<H: EventHandler>(handler: Arc<H>, bus: EventBus, stop: CancellationToken) {
    let mut subscription = bus.subscribe(H::QUEUE);
    let consumer = Consumer { handler, stop };
    while let Some(batch) = next_batch(&mut subscription, &consumer.stop).await {
        let span = tracing::info_span!(
            "consume batch",
            messaging.destination.name = H::QUEUE.name,
            messaging.batch.message_count = batch.len()
        );
        consumer.consume(batch).instrument(span).await;
    }
}

async fn next_batch(
    subscription: &mut Subscription,
    stop: &CancellationToken,
) -> Option<Vec<Received>> {
    tokio::select! {
        biased;
        () = stop.cancelled() => None,
        batch = subscription.next_batch(BATCH) => Some(batch),
    }
}

struct Consumer<H> {
    handler: Arc<H>,
    stop: CancellationToken,
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

impl<H: EventHandler> Consumer<H> {
    async fn consume(&self, batch: Vec<Received>) {
        let mut commands = Vec::with_capacity(batch.len());
        let mut readable = Vec::with_capacity(batch.len());
        let mut void = Vec::new();
        // Each event in the trace of its own; they end together, when the batch is durable.
        let mut spans = Vec::with_capacity(batch.len());
        for mut received in batch {
            let span = received.message.consumer_span(H::QUEUE);
            let command = match &span {
                Some(span) => span.in_scope(|| self.decode(&received)),
                None => self.decode(&received),
            };
            spans.extend(span);
            match command {
                Ok(Some(command)) => {
                    commands.push(command);
                    readable.push(received);
                }
                Ok(None) => void.push(received),
                Err(reason) => received.dead_letter(&reason),
            }
        }
        tokio::join!(
            acknowledge(void),
            self.store_and_acknowledge(readable, commands)
        );
    }

    fn decode(&self, received: &Received) -> Result<Option<H::Command>, String> {
        let decode = || {
            let event = ReceivedEvent::open(&received.message, H::QUEUE)
                .map_err(|error| error.to_string())?;
            self.handler.decode(event)
        };
        // An event that brings the loop down would come again and bring it down again, for ever. The payload
        // of a panic may hold anything; the panic hook has told where it was.
        catch_unwind(AssertUnwindSafe(decode))
            .unwrap_or_else(|_| Err("decoding panicked".to_owned()))
    }

    async fn store_and_acknowledge(&self, batch: Vec<Received>, commands: Vec<H::Command>) {
        match self.store_until_durable(&commands).await {
            Stored::Durable => acknowledge(batch).await,
            // Dropped, the events are delivered again.
            Stored::Stopped => {}
            Stored::Refused(_) => {
                // One of them is at fault: one at a time, so that it spoils no other.
                for (received, command) in batch.into_iter().zip(&commands) {
                    self.store_one(received, command).await;
                }
            }
        }
    }

    async fn store_one(&self, received: Received, command: &H::Command) {
        match self
            .store_until_durable(std::slice::from_ref(command))
            .await
        {
            Stored::Durable => acknowledge(vec![received]).await,
            Stored::Stopped => {}
            Stored::Refused(error) => {
                // The decoder let something through that the database does not take.
                let reason = format!("the database refuses it: {}", without_data(&error));
                received.dead_letter(&reason);
            }
        }
    }

    /// Stores the batch, again and again while the database is away. Nothing is acknowledged meanwhile.
    async fn store_until_durable(&self, commands: &[H::Command]) -> Stored {
        if commands.is_empty() {
            return Stored::Durable;
        }
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        loop {
            let error = match within(STORE_DEADLINE, self.handler.store(commands)).await {
                Ok(()) => return Stored::Durable,
                Err(error) if is_permanent(&error) => return Stored::Refused(error),
                Err(error) => without_data(&error),
            };
            let delay = backoff.next_delay();
            tracing::warn!(error, ?delay, "events cannot be stored; trying again");
            tokio::select! {
                () = self.stop.cancelled() => return Stored::Stopped,
                () = tokio::time::sleep(delay) => {}
            }
        }
    }
}

async fn acknowledge(batch: Vec<Received>) {
    for result in join_all(batch.into_iter().map(Received::ack)).await {
        if let Err(error) = result {
            // It comes again, and changes nothing then.
            tracing::debug!(%error, "acknowledgement lost");
        }
    }
}
