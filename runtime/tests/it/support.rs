//! What the tests share: a bus of their own each, a raw look at the broker, the database.

use std::time::Duration;

use lapin::options::{
    ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection, ConnectionProperties};
use secrecy::SecretString;
use usher_proto::topology::{self, NOTIFY_INVITATIONS, Queue};
use usher_runtime::bus::{EventBus, Message, Received, Subscription};
use usher_runtime::trace_context::TraceContext;
use usher_tests::{Database, ServiceName};
use uuid::Uuid;

/// Longer than anything here takes unless it hangs.
const PATIENCE: Duration = Duration::from_mins(1);

/// The dead letters of notify-svc, as a queue.
pub const DEAD: Queue = Queue {
    name: NOTIFY_INVITATIONS.dead_letter_queue,
    routing_keys: &[],
    dead_letter_queue: NOTIFY_INVITATIONS.dead_letter_queue,
};

/// A bus that no other test sees.
pub struct TestBus {
    pub bus: EventBus,
    pub broker: Option<Broker>,
}

impl TestBus {
    pub fn in_process() -> Self {
        Self {
            bus: EventBus::in_process(),
            broker: None,
        }
    }

    pub fn rabbitmq() -> Self {
        let broker = Broker::new();
        let bus = broker.bus(&amqp_url());
        Self {
            bus,
            broker: Some(broker),
        }
    }

    pub async fn close(self) {
        self.bus.close().await;
        if let Some(broker) = self.broker {
            broker.remove().await;
        }
    }
}

/// Names on the broker that belong to one test.
pub struct Broker {
    prefix: String,
}

impl Broker {
    pub fn new() -> Self {
        Self {
            prefix: format!("test-{}.", Uuid::now_v7()),
        }
    }

    pub fn bus(&self, url: &str) -> EventBus {
        EventBus::rabbitmq_with_prefix(&SecretString::from(url), "runtime-tests", &self.prefix)
            .expect("AMQP_URL is a URL")
    }

    pub fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// A channel that knows nothing of the code under test.
    pub async fn raw(&self) -> (Connection, Channel) {
        let connection = Connection::connect(&amqp_url(), ConnectionProperties::default())
            .await
            .expect("RabbitMQ at AMQP_URL");
        let channel = connection.create_channel().await.expect("channel");
        (connection, channel)
    }

    /// Lets the broker refuse all events of a type, while `channel` is open: one of their queues takes nothing.
    pub async fn refuse(&self, channel: &Channel, event_type: &str) {
        let mut full = FieldTable::default();
        full.insert("x-max-length".into(), AMQPValue::LongInt(0));
        let reject = AMQPValue::LongString("reject-publish".into());
        full.insert("x-overflow".into(), reject);
        self.bind_another(channel, event_type, full).await;
    }

    /// Binds a queue that is not Usher's for all events of a type, while `channel` is open.
    pub async fn bind_another(&self, channel: &Channel, event_type: &str, arguments: FieldTable) {
        let name = ShortString::from(self.name("another"));
        let exclusive = QueueDeclareOptions {
            exclusive: true,
            ..Default::default()
        };
        channel
            .queue_declare(name.clone(), exclusive, arguments)
            .await
            .expect("declare");
        channel
            .queue_bind(
                name,
                self.name(topology::exchange(event_type)).into(),
                event_type.into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .expect("bind");
    }

    pub async fn has_queue(&self, name: &str) -> bool {
        // The broker closes the channel if there is none.
        let (_connection, channel) = self.raw().await;
        let passive = QueueDeclareOptions {
            passive: true,
            ..Default::default()
        };
        let declared =
            channel.queue_declare(self.name(name).into(), passive, FieldTable::default());
        declared.await.is_ok()
    }

    pub async fn delete_queue(&self, name: &str) {
        let (_connection, channel) = self.raw().await;
        channel
            .queue_delete(self.name(name).into(), QueueDeleteOptions::default())
            .await
            .expect("delete");
    }

    pub async fn remove(self) {
        for queue in topology::QUEUES {
            self.delete_queue(queue.name).await;
            self.delete_queue(queue.dead_letter_queue).await;
        }
        let (_connection, channel) = self.raw().await;
        for exchange in [topology::EVENTS_EXCHANGE, topology::INTERNAL_EXCHANGE] {
            channel
                .exchange_delete(self.name(exchange).into(), ExchangeDeleteOptions::default())
                .await
                .expect("delete");
        }
    }
}

pub fn amqp_url() -> String {
    std::env::var("AMQP_URL").expect(
        "AMQP_URL is not set: run `make test`, which starts RabbitMQ, or set it to \
         amqp://user:password@host:port/vhost",
    )
}

/// An empty database, used with the login of a service.
pub async fn database() -> Database {
    let database = Database::create(ServiceName::Account).await;
    database.expect("a database: `make test` starts a server")
}

pub fn event(event_type: &str) -> Message {
    let event_id = Uuid::now_v7();
    Message {
        event_id,
        event_type: event_type.to_owned(),
        body: event_id.as_bytes().repeat(32),
        trace_context: TraceContext(None),
    }
}

pub fn events(count: usize, event_type: &str) -> Vec<Message> {
    (0..count).map(|_| event(event_type)).collect()
}

/// Publishes in the background: in the process, `publish` waits for the consumer.
pub fn publishing(
    bus: &EventBus,
    batch: Vec<Message>,
) -> tokio::task::JoinHandle<Vec<Result<(), usher_runtime::bus::PublishError>>> {
    let bus = bus.clone();
    tokio::spawn(async move { bus.publish(&batch).await })
}

pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what}: nothing within {PATIENCE:?}"))
}

pub async fn receive(subscription: &mut Subscription, max: usize) -> Vec<Received> {
    let batch = soon("receive", subscription.next_batch(max)).await;
    assert!((1..=max).contains(&batch.len()), "{} of {max}", batch.len());
    batch
}

pub async fn receive_one(subscription: &mut Subscription) -> Received {
    receive(subscription, 1).await.remove(0)
}
