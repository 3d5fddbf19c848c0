//! A notify-svc of one's own: its database, its bus, its SMTP server.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use clap::Parser;
use notify_svc::{
    app::Application,
    config::NotifyArgs,
    db::{MIGRATIONS, ROLE},
    mail::MailTransport,
    smtp::SmtpTransport,
};
use prost::Message as _;
use secrecy::SecretString;
use sqlx::PgPool;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use usher_proto::{
    event::v1::{DeliveryChanged, DeliveryState, Event, event::Payload},
    notify::v1::{
        self as proto, GetDeliveryRequest, ListDeliveriesRequest,
        delivery_service_client::DeliveryServiceClient,
    },
    topology::{ACCOUNT_DELIVERIES, NOTIFY_INVITATIONS, Queue},
};
use usher_runtime::{
    bus::{EventBus, Message},
    config::ServerArgs,
    database::{Pools, connect},
    seal::{PrivateKey, PublicKey},
    trace_context::TraceContext,
};
use usher_tests::{Database, ServiceName};
use uuid::Uuid;

use crate::{requests::Request, scripted_smtp::ScriptedSmtp};

/// Longest that anything may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// A new, migrated database.
pub async fn database() -> Database {
    let database = Database::migrated(ServiceName::Notify, &MIGRATIONS).await;
    database.expect("a database: `make test` starts a server")
}

/// The same database for another process.
pub async fn shared(database: &Database) -> Database {
    let url: sqlx::postgres::PgConnectOptions = database.service_url().parse().unwrap();
    let name = url.get_database().expect("a name");
    Database::open(ServiceName::Notify, name)
        .await
        .expect("the same database")
}

/// Connections as the service has them.
fn pools(database: &Database) -> Pools {
    Pools::connect(&SecretString::from(database.service_url()), ROLE, 8, 8).expect("pools")
}

/// Connections as the service has them.
pub fn pool(database: &Database) -> PgPool {
    connect(&SecretString::from(database.service_url()), ROLE, 8).expect("pool")
}

#[derive(Parser)]
#[command(args_override_self = true)]
struct TestArgs {
    #[command(flatten)]
    notify: NotifyArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// Settings that make tests quick, with `more` on top.
fn args(key: &PrivateKey, more: &[&str]) -> TestArgs {
    let key = key.to_base64();
    let base = [
        "test",
        "--allow-unauthenticated",
        "--mail-from=invitations@mail.example",
        "--smtp-ehlo-name=mail.example",
        "--token-private-key",
        &key,
        "--retry-base=100ms",
        "--unknown-delay=100ms",
        "--recipient-gap=0s",
        "--smtp-command-timeout=500ms",
        "--smtp-data-timeout=500ms",
        "--smtp-connect-timeout=500ms",
        "--send-lease=10s",
        "--shutdown-timeout=5s",
    ];
    TestArgs::parse_from(base.iter().chain(more))
}

/// A running service.
pub struct Service {
    pub database: Database,
    pub bus: EventBus,
    pub smtp: ScriptedSmtp,
    pub key: PublicKey,
    private_key: PrivateKey,
    deliveries: DeliveryServiceClient<Channel>,
    pub channel: Channel,
    /// What was published, each with the trace that it came in.
    pub changes: Arc<Mutex<Vec<(DeliveryChanged, TraceContext)>>>,
    stop: CancellationToken,
    running: JoinHandle<anyhow::Result<()>>,
}

impl Service {
    pub async fn start(more: &[&str]) -> Self {
        Self::start_on(database().await, EventBus::in_process(), more).await
    }

    pub async fn start_on(database: Database, bus: EventBus, more: &[&str]) -> Self {
        let smtp = ScriptedSmtp::start().await;
        let (private_key, _) = PrivateKey::generate().unwrap();
        Self::start_with(database, bus, smtp, private_key, more).await
    }

    pub async fn start_with(
        database: Database,
        bus: EventBus,
        smtp: ScriptedSmtp,
        private_key: PrivateKey,
        more: &[&str],
    ) -> Self {
        Self::start_through(database, bus, smtp, private_key, more, |transport| {
            transport
        })
        .await
    }

    /// A service whose emails pass through what `wrap` makes.
    pub async fn start_through<T: MailTransport>(
        database: Database,
        bus: EventBus,
        smtp: ScriptedSmtp,
        private_key: PrivateKey,
        more: &[&str],
        wrap: impl FnOnce(SmtpTransport) -> T,
    ) -> Self {
        crate::telemetry::observe();
        let url = format!("--smtp-url={}", smtp.url());
        let settings: Vec<&str> = [url.as_str()]
            .into_iter()
            .chain(more.iter().copied())
            .collect();
        let args = args(&private_key, &settings);
        let transport = wrap(args.notify.smtp.transport().expect("transport"));
        let stop = CancellationToken::new();
        let (channel, running) = run(&args, pools(&database), bus.clone(), transport, &stop).await;
        let changes = Arc::default();
        tokio::spawn(collect(bus.clone(), Arc::clone(&changes)));
        Self {
            database,
            bus,
            smtp,
            key: private_key.public_key().clone(),
            private_key,
            deliveries: DeliveryServiceClient::new(channel.clone()),
            channel,
            changes,
            stop,
            running,
        }
    }

    /// A clean stop, and a new start on the same database and SMTP server.
    pub async fn restart(self, more: &[&str]) -> Self {
        let key = self.private_key.clone();
        self.restart_with_key(key, more).await
    }

    /// The same with another key.
    pub async fn restart_with_key(self, private_key: PrivateKey, more: &[&str]) -> Self {
        self.stop.cancel();
        self.running.await.unwrap().unwrap();
        self.bus.close().await;
        let bus = EventBus::in_process();
        Self::start_with(self.database, bus, self.smtp, private_key, more).await
    }

    /// Leaves everything as it is and keeps the database.
    pub fn abandon(self) -> Database {
        self.database
    }

    /// Stops the service and keeps its database.
    pub async fn stop_working(&self) {
        self.stop.cancel();
        eventually("the service stops", async || self.running.is_finished()).await;
    }

    pub async fn stop(self) {
        self.stop.cancel();
        self.running.await.unwrap().unwrap();
        self.bus.close().await;
    }

    /// An email to `recipient`, as account-svc would ask for it.
    pub fn request(&self, recipient: &str) -> Request {
        Request::new(&self.key, recipient)
    }

    pub async fn publish(&self, message: Message) {
        self.publish_all(&[message]).await;
    }

    pub async fn publish_all(&self, messages: &[Message]) {
        for result in self.bus.publish(messages).await {
            result.expect("published");
        }
    }

    pub async fn delivery(&self, request: &Request) -> Option<proto::Delivery> {
        let list = ListDeliveriesRequest {
            organization_id: request.organization_id.to_string(),
            invitation_id: request.requested.invitation_id.clone(),
            ..Default::default()
        };
        let answer = self
            .deliveries
            .clone()
            .list_deliveries(list)
            .await
            .expect("list");
        let number = request.requested.send_number;
        let found = answer.into_inner().deliveries;
        let delivery = found
            .into_iter()
            .find(|delivery| delivery.send_number == number)?;
        let get = GetDeliveryRequest {
            organization_id: delivery.organization_id.clone(),
            delivery_id: delivery.delivery_id.clone(),
        };
        let got = self
            .deliveries
            .clone()
            .get_delivery(get)
            .await
            .expect("get")
            .into_inner()
            .delivery;
        // Between the two it may have changed.
        assert_eq!(
            got.as_ref().map(|got| &got.delivery_id),
            Some(&delivery.delivery_id)
        );
        got
    }

    /// Waits until the delivery is in `state`.
    pub async fn reaches(&self, request: &Request, state: proto::DeliveryState) -> proto::Delivery {
        let started = Instant::now();
        loop {
            let delivery = self.delivery(request).await;
            match delivery {
                Some(delivery) if delivery.state() == state => return delivery,
                delivery if started.elapsed() > DEADLINE => {
                    panic!("not {state:?} in time but {delivery:?}")
                }
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    /// Waits for `count` dead letters, and takes them: the reason of each event.
    pub async fn dead_letters(&self, count: usize) -> HashMap<Uuid, String> {
        let mut subscription = self.bus.subscribe(Queue {
            name: NOTIFY_INVITATIONS.dead_letter_queue,
            routing_keys: &[],
            dead_letter_queue: NOTIFY_INVITATIONS.dead_letter_queue,
        });
        let mut reasons = HashMap::new();
        while reasons.len() < count {
            let batch = tokio::time::timeout(DEADLINE, subscription.next_batch(100)).await;
            for received in batch.expect("dead letters in time") {
                let reason = received.dead_letter_reason.clone().expect("a reason");
                reasons.insert(received.message.event_id, reason);
                received.ack().await.expect("ack");
            }
        }
        reasons
    }

    /// The states that were published for a request, in the order of their revisions.
    pub fn published(&self, request: &Request) -> Vec<DeliveryState> {
        let mut changes: Vec<_> = self
            .changes
            .lock()
            .unwrap()
            .iter()
            .map(|(change, _)| change)
            .filter(|change| {
                change.invitation_id == request.requested.invitation_id
                    && change.send_number == request.requested.send_number
            })
            .cloned()
            .collect();
        changes.sort_by_key(|change| change.revision);
        changes.dedup_by_key(|change| change.revision);
        changes.iter().map(DeliveryChanged::state).collect()
    }
}

/// Runs a service on `transport` until `stop`.
async fn run<T: MailTransport>(
    args: &TestArgs,
    pools: Pools,
    bus: EventBus,
    transport: T,
    stop: &CancellationToken,
) -> (Channel, JoinHandle<anyhow::Result<()>>) {
    let application =
        Application::build(&args.notify, &args.server, pools, transport).expect("build");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let running = tokio::spawn(application.run_until_stopped(bus, listener.into(), stop.clone()));
    let channel = Channel::from_shared(address)
        .unwrap()
        .connect()
        .await
        .expect("channel");
    (channel, running)
}

async fn collect(bus: EventBus, changes: Arc<Mutex<Vec<(DeliveryChanged, TraceContext)>>>) {
    let mut subscription = bus.subscribe(ACCOUNT_DELIVERIES);
    loop {
        for received in subscription.next_batch(100).await {
            let event = Event::decode(received.message.body.as_slice()).expect("an event");
            match event.payload {
                Some(Payload::DeliveryChanged(change)) => {
                    let trace_context = received.message.trace_context.clone();
                    changes.lock().unwrap().push((change, trace_context));
                }
                other => panic!("unexpected event {other:?}"),
            }
            let _ = received.ack().await;
        }
    }
}

/// Waits until `condition` holds.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < DEADLINE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
