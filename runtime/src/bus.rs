//! Events between services: over RabbitMQ, or inside the process for `cargo run` and tests.
//!
//! Both deliver at least once and in no particular order, so a consumer remembers the ids of the events
//! that it has handled. One conformance suite (`tests/it/bus_conformance.rs`) runs against both.

mod in_process;
mod rabbitmq;
mod span;

use std::sync::LazyLock;

use opentelemetry::{KeyValue, metrics::Counter};
use secrecy::SecretString;
use usher_proto::topology::Queue;
use uuid::Uuid;

use crate::{hidden_debug, trace_context::TraceContext};

/// Most bytes that an encoded event may have: many times what any event of Usher has, and little enough that
/// what a subscription holds is some tens of MiB. The tables `outbox` hold the same bound.
pub const MAX_EVENT_BYTES: usize = 256 * 1024;

/// Most bytes of an event type, as AMQP carries no more.
const MAX_EVENT_TYPE_BYTES: usize = 255;

/// Most bytes of the reason that is stored with a dead letter. With it, all properties of a message fit into
/// the smallest frame that AMQP 0-9-1 allows (4,096 bytes): a larger one ends the connection.
const MAX_REASON_BYTES: usize = 1_024;

static DEAD_LETTERS: LazyLock<Counter<u64>> = LazyLock::new(|| {
    opentelemetry::global::meter("usher")
        .u64_counter("usher.consumer.dead_letters")
        .with_description("Events that cannot be handled and were parked.")
        .build()
});

/// An event on its way from an outbox to an inbox.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// What a consumer recognizes a repetition by.
    pub event_id: Uuid,
    /// One of [`routing_key`](usher_proto::topology::routing_key); at most 255 bytes.
    pub event_type: String,
    /// An encoded [`Event`](usher_proto::event::v1::Event); at most [`MAX_EVENT_BYTES`].
    pub body: Vec<u8>,
    /// The trace that the event belongs to.
    pub trace_context: TraceContext,
}

hidden_debug!(Message {
    event_id,
    event_type
});

impl Message {
    /// Whether the bus takes it.
    fn check(&self) -> Result<(), PublishError> {
        if self.event_type.len() > MAX_EVENT_TYPE_BYTES {
            return Err(PublishError::InvalidEventType);
        }
        if self.body.len() > MAX_EVENT_BYTES {
            return Err(PublishError::TooLarge);
        }
        Ok(())
    }
}

/// Why an event is not known to be in a queue. It may be there all the same: publish it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// There is no connection, or it broke before the confirm came.
    #[error("the broker is not connected; publish again when it is back")]
    Disconnected,
    /// The broker refuses to declare exchanges and queues.
    #[error("the broker refuses Usher's exchanges or queues; the log and /readyz say why")]
    Undeclared,
    /// No confirm within the time allowed.
    #[error("no confirm in time; look for memory or disk alarms of the broker, then publish again")]
    Unconfirmed,
    /// The broker refused the event.
    #[error(
        "the broker refused the event; look for a full queue or a lost quorum, then publish again"
    )]
    Refused,
    /// An event that must reach a queue found none; the queues are declared again before the next try.
    #[error("no queue is bound for this event type; publish again, the queues are declared anew")]
    Unroutable,
    /// The event type is longer than 255 bytes.
    #[error("the event type is longer than 255 bytes; use one of topology::routing_key")]
    InvalidEventType,
    /// The event is larger than [`MAX_EVENT_BYTES`].
    #[error("the event is larger than 256 KiB; publish less in one event")]
    TooLarge,
    /// [`EventBus::close`] was called.
    #[error("the event bus is closed; publish again after the restart")]
    Closed,
}

impl PublishError {
    /// Whether the broker, which is there, does not take this event; others may go through.
    pub(crate) fn is_refusal(self) -> bool {
        match self {
            Self::Refused | Self::Unroutable | Self::InvalidEventType | Self::TooLarge => true,
            Self::Disconnected | Self::Undeclared | Self::Unconfirmed | Self::Closed => false,
        }
    }
}

/// Why the bus did not do what it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// The URL of the broker cannot be understood.
    #[error(
        "not a broker URL; expected amqp[s]://user:password@host:port/vhost, with %2f for the vhost /"
    )]
    InvalidUrl,
    /// The event was handled, but the broker does not know: it will be delivered again.
    #[error("the acknowledgement did not reach the broker; expect the event again")]
    AckLost,
}

/// Where events are published to and received from. Clones share their connections.
#[derive(Clone)]
pub struct EventBus(Transport);

#[derive(Clone)]
enum Transport {
    RabbitMq(rabbitmq::RabbitMq),
    InProcess(in_process::InProcess),
}

impl EventBus {
    /// The bus on the RabbitMQ at `url`. Returns at once and connects in the background, again and again
    /// without limit; [`Self::is_connected`] tells. The connections are named after `connection_name`.
    ///
    /// Must be called inside a Tokio runtime.
    ///
    /// # Errors
    /// [`BusError::InvalidUrl`], which does not repeat the URL: it holds a password.
    pub fn rabbitmq(url: &SecretString, connection_name: &str) -> Result<Self, BusError> {
        Self::rabbitmq_with_prefix(url, connection_name, "")
    }

    /// As [`Self::rabbitmq`], with `prefix` before the name of every exchange and queue, so that
    /// several installations (or tests) share a virtual host without meeting.
    ///
    /// # Errors
    /// As [`Self::rabbitmq`].
    pub fn rabbitmq_with_prefix(
        url: &SecretString,
        connection_name: &str,
        prefix: &str,
    ) -> Result<Self, BusError> {
        let bus = rabbitmq::RabbitMq::new(url, connection_name, prefix)?;
        Ok(Self(Transport::RabbitMq(bus)))
    }

    /// A bus that keeps nothing: `publish` resolves when a consumer has acknowledged, so that until then
    /// the event stays in the outbox, which is durable.
    #[must_use]
    pub fn in_process() -> Self {
        Self(Transport::InProcess(in_process::InProcess::default()))
    }

    /// Publishes a batch of any size and waits for all of it. The results are in the order of the batch.
    /// `Ok` means that the event is durable in every queue that is bound for it; events that
    /// [`is_internal`](usher_proto::topology::is_internal) names must find one, others need not.
    ///
    /// Bounded: an outage makes errors within seconds. An event whose result is an error may still arrive,
    /// unless the error is about the event itself ([`PublishError::InvalidEventType`], [`PublishError::TooLarge`]).
    pub async fn publish(&self, batch: &[Message]) -> Vec<Result<(), PublishError>> {
        match &self.0 {
            Transport::RabbitMq(bus) => bus.publish(batch).await,
            Transport::InProcess(bus) => bus.publish(batch).await,
        }
    }

    /// Starts to receive what comes into `queue`. Several subscriptions share its events.
    #[must_use]
    pub fn subscribe(&self, queue: Queue) -> Subscription {
        Subscription(match &self.0 {
            Transport::RabbitMq(bus) => Deliveries::RabbitMq(Box::new(bus.subscribe(queue))),
            Transport::InProcess(bus) => Deliveries::InProcess(bus.subscribe(queue)),
        })
    }

    /// Whether events flow now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.problem().is_none()
    }

    /// Why events do not flow, for people and without a password; `None` if they do.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        match &self.0 {
            Transport::RabbitMq(bus) => bus.problem(),
            Transport::InProcess(bus) => bus.is_closed().then(|| "closed".to_owned()),
        }
    }

    /// Waits until events can be published; for ever on a closed bus.
    pub async fn connected(&self) {
        match &self.0 {
            Transport::RabbitMq(bus) => bus.connected().await,
            Transport::InProcess(bus) => bus.connected().await,
        }
    }

    /// Ends the connections, for all clones. What was received and not acknowledged is delivered again
    /// later; calls to `publish` that wait fail; `next_batch` waits for ever. Takes at most some seconds.
    pub async fn close(&self) {
        match &self.0 {
            Transport::RabbitMq(bus) => bus.close().await,
            Transport::InProcess(bus) => bus.close(),
        }
    }
}

/// Receives the events of one queue; re-subscribes after outages by itself.
pub struct Subscription(Deliveries);

enum Deliveries {
    RabbitMq(Box<rabbitmq::Subscription>),
    InProcess(in_process::Subscription),
}

impl Subscription {
    /// Waits for an event, then returns it with those that are at hand, at most `max`.
    ///
    /// Can be cancelled at any moment: no event is lost.
    pub async fn next_batch(&mut self, max: usize) -> Vec<Received> {
        match &mut self.0 {
            Deliveries::RabbitMq(subscription) => subscription.next_batch(max).await,
            Deliveries::InProcess(subscription) => subscription.next_batch(max).await,
        }
    }
}

/// An event that waits for its acknowledgement. Dropped without one, it is delivered again at once: whoever
/// drops it because of a failure waits before, as the broker sets no pace.
#[must_use = "dropped, the event is delivered again"]
pub struct Received {
    /// The event.
    pub message: Message,
    /// Of an event that comes out of a dead-letter queue: why it was parked.
    pub dead_letter_reason: Option<String>,
    receipt: Receipt,
}

enum Receipt {
    RabbitMq(rabbitmq::Receipt),
    InProcess(in_process::Receipt),
}

impl Received {
    /// Whether an acknowledgement could still reach the bus.
    fn is_usable(&self) -> bool {
        match &self.receipt {
            Receipt::RabbitMq(receipt) => receipt.is_usable(),
            Receipt::InProcess(_) => true,
        }
    }

    /// The event is handled, durably: the broker may forget it.
    ///
    /// # Errors
    /// [`BusError::AckLost`]: it will come again.
    pub async fn ack(self) -> Result<(), BusError> {
        match self.receipt {
            Receipt::RabbitMq(receipt) => receipt.ack().await,
            Receipt::InProcess(receipt) => {
                receipt.ack();
                Ok(())
            }
        }
    }

    /// Parks an event that can never be handled in the dead-letter queue. `reason` is stored with it and
    /// logged: it must hold nothing personal, and is cut after 1,024 bytes.
    ///
    /// Returns at once. The event is parked in the background, again and again with pauses until the broker
    /// has confirmed it, and acknowledged then; when its connection is lost before, it comes again.
    pub fn dead_letter(self, reason: &str) {
        let reason = reason[..reason.floor_char_boundary(MAX_REASON_BYTES)].to_owned();
        match self.receipt {
            Receipt::RabbitMq(receipt) => receipt.dead_letter(self.message, reason),
            Receipt::InProcess(receipt) => receipt.dead_letter(reason),
        }
    }
}

/// Tells of an event of `queue` that is in the dead-letter queue now.
fn record_parked(message: &Message, queue: Queue, reason: &str) {
    DEAD_LETTERS.add(
        1,
        &[KeyValue::new("messaging.destination.name", queue.name)],
    );
    tracing::warn!(
        event.id = %message.event_id,
        event.type = message.event_type,
        queue = queue.name,
        reason,
        "event parked as a dead letter"
    );
}
