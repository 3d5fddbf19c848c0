//! The service as a whole. What it works with is handed in, so that several services, or a test, can run
//! it in one process.

use std::{sync::Arc, time::Duration};

use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use usher_runtime::{
    bus::EventBus,
    callers::Callers,
    change::Store,
    config::ServerArgs,
    consumer,
    database::{self, Pools},
    health::Problems,
    housekeeping,
    service::{Listeners, Service},
    wake::Wake,
    workers::Workers,
};

use crate::{
    config::NotifyArgs,
    db::MIGRATIONS,
    grpc,
    mail::MailTransport,
    metrics::Metrics,
    render::Renderer,
    retention,
    use_cases::{
        intake::Intake,
        sending::{Due, Sender, SenderSettings, backlog},
    },
};

/// notify-svc, ready to run.
pub struct Application<T> {
    pools: Pools,
    server: ServerArgs,
    callers: Callers,
    intake: Arc<Intake>,
    sender: Arc<Sender<T>>,
    grpc: grpc::Service,
    metrics: Metrics,
    problems: Problems,
    delivery_retention: Duration,
    slot_memory: Duration,
}

impl<T: MailTransport> Application<T> {
    /// Checks the settings and puts the parts together. Connects to nothing yet: the service starts, and says
    /// that it is not ready, while what it needs is away.
    ///
    /// # Errors
    /// If a setting cannot be used; the message names it.
    pub fn build(
        args: &NotifyArgs,
        server: &ServerArgs,
        pools: Pools,
        transport: T,
    ) -> anyhow::Result<Self> {
        let settings: SenderSettings = args.sender(server.shutdown_timeout)?;
        let renderer = Arc::new(Renderer::new()?);
        let metrics = Metrics::new();
        let due = Due::default();
        let outbox = Wake::default();
        let problems = Problems::default();
        Ok(Self {
            intake: Arc::new(Intake {
                pool: pools.workers.clone(),
                limits: args.recipient_limits(),
                due: due.clone(),
                outbox: outbox.clone(),
                metrics: metrics.clone(),
            }),
            sender: Arc::new(Sender {
                pool: pools.workers.clone(),
                transport,
                renderer: Arc::clone(&renderer),
                keys: args.keys()?,
                envelope: args.envelope(),
                settings,
                due: due.clone(),
                outbox: outbox.clone(),
                metrics: metrics.clone(),
                problems: problems.clone(),
            }),
            grpc: grpc::Service {
                store: Store::new(pools.calls.clone(), outbox),
                renderer,
                envelope: args.envelope(),
                metrics: metrics.clone(),
                recipient_limits: args.recipient_limits(),
                shared_limits: settings.limits,
                due,
            },
            pools,
            server: server.clone(),
            callers: Callers::from_args(&server.callers)?,
            metrics,
            problems,
            delivery_retention: args.delivery_retention()?,
            slot_memory: args.recipient_limits().memory(),
        })
    }

    /// Runs on `bus` until `stop`; then stops taking in, finishes what is under way, publishes what is in the outbox,
    /// and returns.
    ///
    /// # Errors
    /// If a listener breaks.
    pub async fn run_until_stopped(
        self,
        bus: EventBus,
        listeners: Listeners,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let workers = Workers::new(stop.clone());
        let events = bus.clone();
        workers.spawn("intake", move |stop| {
            consumer::run(Arc::clone(&self.intake), events.clone(), stop)
        });
        workers.spawn("sender", move |stop| Arc::clone(&self.sender).run(stop));
        let pool = self.pools.workers.clone();
        workers.spawn("backlog", move |stop| {
            backlog::measure(pool.clone(), self.metrics.clone(), stop)
        });
        let (pool, purges) = (
            self.pools.workers.clone(),
            retention::purges(self.delivery_retention, self.slot_memory),
        );
        workers.spawn("housekeeping", move |stop| {
            housekeeping::run(pool.clone(), Arc::clone(&purges), stop)
        });
        let service = Service {
            name: "notify-svc",
            table: "public.deliveries",
            outbox: self.grpc.store.outbox.clone(),
            routes: self.grpc.routes(self.server.max_message_bytes),
            pools: self.pools,
            bus,
            server: self.server,
            callers: self.callers,
            problems: self.problems,
            workers,
        };
        service.run_until_stopped(listeners, stop).await
    }
}

/// Brings a database up to date, as whoever `url` logs in.
///
/// # Errors
/// If the database is away or a migration fails.
pub async fn migrate(url: &SecretString) -> anyhow::Result<()> {
    database::migrate(url, &MIGRATIONS).await
}
