//! The bus on RabbitMQ, over quorum queues.
//!
//! Publishing and consuming have a connection each: the broker stops reading from a publisher while it has
//! no memory or disk, and acknowledgements must not wait behind that.

mod consumer;
mod dead_letters;
mod link;
mod publisher;
mod refusals;
mod wire;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use lapin::uri::AMQPUri;
use secrecy::{ExposeSecret as _, SecretString};
use usher_proto::topology::{self, Queue};

pub(super) use self::consumer::{Receipt, Subscription};
use self::link::Link;
use self::publisher::Publisher;
use self::refusals::Refusals;
use self::wire::{Names, Outgoing};
use super::{BusError, Message, PublishError};

/// How long `publish` waits for a connection that is not there. Covers the start of the process and a
/// reconnection; longer outages are the relay's to wait for.
const CONNECTION_WAIT: Duration = Duration::from_secs(3);

/// How long the broker may take for one step: a confirm, an acknowledgement, a declaration.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub(super) struct RabbitMq(Arc<Inner>);

struct Inner {
    uri: AMQPUri,
    connection_name: String,
    names: Names,
    publishing: Link,
    /// Opened by the first subscription: a process that only publishes needs one connection.
    consuming: OnceLock<Link>,
    /// The channels that no batch is using. One batch at a time on each: returned messages carry no trace of the
    /// batch that they belong to.
    idle_publishers: Mutex<Vec<Publisher>>,
    refusals: Refusals,
}

impl RabbitMq {
    pub(super) fn new(
        url: &SecretString,
        connection_name: &str,
        prefix: &str,
    ) -> Result<Self, BusError> {
        // The parser's own error repeats the URL, with its password.
        let uri: AMQPUri = url
            .expose_secret()
            .parse()
            .map_err(|_| BusError::InvalidUrl)?;
        Ok(Self(Arc::new(Inner {
            publishing: Link::open(&uri, format!("{connection_name} publishing")),
            uri,
            connection_name: connection_name.to_owned(),
            names: Names::new(prefix),
            consuming: OnceLock::new(),
            idle_publishers: Mutex::default(),
            refusals: Refusals::default(),
        })))
    }

    pub(super) async fn publish(&self, batch: &[Message]) -> Vec<Result<(), PublishError>> {
        let outgoing: Vec<_> = batch
            .iter()
            .map(|message| Outgoing {
                message,
                exchange: self.0.names.exchange(&message.event_type),
                routing_key: &message.event_type,
                mandatory: topology::is_internal(&message.event_type),
                reason: None,
            })
            .collect();
        self.send(&outgoing).await
    }

    /// Parks messages, each with its reason; they must reach the dead-letter queue `name`.
    async fn park(&self, batch: &[(&Message, &str)], name: &str) -> Vec<Result<(), PublishError>> {
        let queue = self.0.names.queue(name);
        let outgoing: Vec<_> = batch
            .iter()
            .map(|&(message, reason)| Outgoing {
                message,
                // The default exchange routes to the queue of that name.
                exchange: "",
                routing_key: &queue,
                mandatory: true,
                reason: Some(reason),
            })
            .collect();
        self.send(&outgoing).await
    }

    async fn send(&self, batch: &[Outgoing<'_>]) -> Vec<Result<(), PublishError>> {
        // Taken out for the time of the batch: when this future is dropped halfway, confirms and returned
        // messages are still under way on that channel, and the next batch must not meet them.
        let publisher = match self.idle_publisher() {
            Some(publisher) => publisher,
            None => match self.open_publisher().await {
                Ok(publisher) => publisher,
                Err(error) => return vec![Err(error); batch.len()],
            },
        };
        let results = publisher.send(batch).await;
        // Any failure, and the next batch starts on a fresh channel, with the topology declared again.
        let mut idle = self.idle_publishers();
        if results.iter().all(Result::is_ok) {
            idle.push(publisher);
        } else {
            idle.clear();
        }
        results
    }

    fn idle_publisher(&self) -> Option<Publisher> {
        let mut idle = self.idle_publishers();
        idle.retain(Publisher::is_usable);
        idle.pop()
    }

    fn idle_publishers(&self) -> MutexGuard<'_, Vec<Publisher>> {
        let idle = &self.0.idle_publishers;
        idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open_publisher(&self) -> Result<Publisher, PublishError> {
        let connection = tokio::time::timeout(CONNECTION_WAIT, self.0.publishing.connection())
            .await
            .map_err(|_| PublishError::Disconnected)?
            .ok_or(PublishError::Closed)?;
        Publisher::open(connection, &self.0.names, &self.0.refusals).await
    }

    pub(super) fn subscribe(&self, queue: Queue) -> Subscription {
        Subscription::new(self.clone(), queue)
    }

    fn consuming(&self) -> &Link {
        self.0.consuming.get_or_init(|| {
            Link::open(&self.0.uri, format!("{} consuming", self.0.connection_name))
        })
    }

    fn refusals(&self) -> &Refusals {
        &self.0.refusals
    }

    fn names(&self) -> &Names {
        &self.0.names
    }

    /// Why events do not flow; `None` if they do.
    pub(super) fn problem(&self) -> Option<String> {
        let consuming = || self.0.consuming.get().and_then(Link::problem);
        let refusal = || self.0.refusals.problem();
        self.0
            .publishing
            .problem()
            .or_else(consuming)
            .or_else(refusal)
    }

    pub(super) async fn connected(&self) {
        if self.0.publishing.connection().await.is_none() {
            std::future::pending::<()>().await; // Closed.
        }
    }

    pub(super) async fn close(&self) {
        self.0.publishing.close().await;
        if let Some(consuming) = self.0.consuming.get() {
            consuming.close().await;
        }
    }
}
