//! What the tests share: a bus of their own each, a raw look at the broker, the database, a proxy that makes
//! faults.

use std::net::SocketAddr;
use std::time::Duration;

use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties};
use secrecy::SecretString;
use sqlx::postgres::PgConnectOptions;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use usher_proto::topology::{self, NOTIFY_INVITATIONS, Queue};
use usher_runtime::bus::{EventBus, Message, Received, Subscription};
use usher_runtime::trace_context::TraceContext;
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
        channel
            .exchange_delete(
                self.name(topology::EVENTS_EXCHANGE).into(),
                ExchangeDeleteOptions::default(),
            )
            .await
            .expect("delete");
    }
}

pub fn amqp_url() -> String {
    std::env::var("AMQP_URL").expect(
        "AMQP_URL is not set: run `make test`, which starts RabbitMQ, or set it to \
         amqp://user:password@host:port/vhost",
    )
}

/// A database on a PostgreSQL server; the tests leave nothing behind in it.
pub fn database_url() -> String {
    std::env::var("DATABASE_URL").expect(
        "DATABASE_URL is not set: run `make test`, which starts PostgreSQL, or set it to \
         postgres://user@host:port/database",
    )
}

fn database_options() -> PgConnectOptions {
    database_url().parse().expect("DATABASE_URL")
}

/// The role of the login in `DATABASE_URL`: everybody may take on their own.
pub fn database_role() -> String {
    database_options().get_username().to_owned()
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

/// A TCP proxy in front of a server that cuts, holds, refuses or falls silent.
pub struct Proxy {
    address: SocketAddr,
    control: watch::Sender<Control>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Control {
    mode: Mode,
    cuts: u64,
    silences: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Forward,
    /// Connections stay open and carry nothing.
    Hold,
    /// Connections are closed as soon as they are made.
    Refuse,
}

impl Proxy {
    /// In front of RabbitMQ.
    pub async fn start() -> Self {
        let uri: AMQPUri = amqp_url().parse().expect("AMQP_URL");
        Self::in_front_of((uri.authority.host, uri.authority.port)).await
    }

    pub async fn in_front_of_postgresql() -> Self {
        let server = database_options();
        Self::in_front_of((server.get_host().to_owned(), server.get_port())).await
    }

    async fn in_front_of(upstream: (String, u16)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let (control, state) = watch::channel(Control {
            mode: Mode::Forward,
            cuts: 0,
            silences: 0,
        });
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if state.borrow().mode != Mode::Refuse {
                    tokio::spawn(carry(client, upstream.clone(), state.clone()));
                }
            }
        });
        Self { address, control }
    }

    /// `AMQP_URL` by way of this proxy.
    pub fn url(&self) -> String {
        let mut uri: AMQPUri = amqp_url().parse().expect("AMQP_URL");
        uri.authority.host = self.address.ip().to_string();
        uri.authority.port = self.address.port();
        uri.to_string()
    }

    /// `DATABASE_URL` by way of this proxy.
    pub fn database_url(&self) -> String {
        let server = database_options();
        format!(
            "postgres://{}@{}/{}",
            server.get_username(),
            self.address,
            server
                .get_database()
                .expect("DATABASE_URL names a database")
        )
    }

    pub fn set(&self, mode: Mode) {
        self.control.send_modify(|control| control.mode = mode);
    }

    /// From now on the connections that are open swallow what is sent, in both directions, and never end; new
    /// ones work.
    pub fn silence(&self) {
        self.control.send_modify(|control| control.silences += 1);
    }

    /// Ends every connection.
    pub fn cut(&self) {
        self.control.send_modify(|control| control.cuts += 1);
    }
}

async fn carry(client: TcpStream, upstream: (String, u16), state: watch::Receiver<Control>) {
    let Ok(server) = TcpStream::connect(upstream).await else {
        return;
    };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let cuts = state.borrow().cuts;
    let mut cut = state.clone();
    tokio::select! {
        () = pump(from_client, to_server, state.clone()) => {}
        () = pump(from_server, to_client, state) => {}
        _ = cut.wait_for(|control| control.cuts != cuts) => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<Control>,
) {
    let mut buffer = vec![0; 64 * 1024];
    let silences = state.borrow().silences;
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer).await else {
            if state.borrow().silences != silences {
                // Nor does the other side learn that this one has gone.
                std::future::pending::<()>().await;
            }
            return;
        };
        if state.borrow().silences != silences {
            continue;
        }
        if state
            .wait_for(|control| control.mode != Mode::Hold)
            .await
            .is_err()
            || to.write_all(&buffer[..count]).await.is_err()
        {
            return;
        }
    }
}
