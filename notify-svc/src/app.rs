//! The service as a whole. What it works with is handed in, so that several services, or a test, can run
//! it in one process.

use std::sync::Arc;

use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use usher_runtime::{
    bus::EventBus,
    callers::Callers,
    config::ServerArgs,
    database::{self, Pools},
    relay,
    service::{Listeners, Service},
    workers::Workers,
};

use crate::{
    config::NotifyArgs,
    db::MIGRATIONS,
    grpc, housekeeping,
    intake::Intake,
    mail::{Envelope, MailTransport},
    metrics::Metrics,
    render::Renderer,
    sender::{Due, Sender, SenderSettings},
};

/// notify-svc, ready to run.
pub struct Application<T> {
    pools: Pools,
    bus: EventBus,
    server: ServerArgs,
    callers: Callers,
    intake: Arc<Intake>,
    sender: Arc<Sender<T>>,
    renderer: Arc<Renderer>,
    envelope: Envelope,
    outbox: relay::Wake,
    metrics: Metrics,
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
        bus: EventBus,
        transport: T,
    ) -> anyhow::Result<Self> {
        let settings: SenderSettings = args.sender(server.shutdown_timeout)?;
        let renderer = Arc::new(Renderer::new()?);
        let metrics = Metrics::new();
        let due = Due::default();
        let outbox = relay::Wake::default();
        Ok(Self {
            intake: Arc::new(Intake {
                pool: pools.workers.clone(),
                bus: bus.clone(),
                limits: args.recipient_limits()?,
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
                due,
                outbox: outbox.clone(),
                metrics: metrics.clone(),
            }),
            pools,
            bus,
            server: server.clone(),
            callers: Callers::from_args(&server.callers)?,
            renderer,
            envelope: args.envelope(),
            outbox,
            metrics,
        })
    }

    /// Runs until `stop`; then stops taking in, finishes what is under way, publishes what is in the outbox,
    /// and returns.
    ///
    /// # Errors
    /// If a listener breaks.
    pub async fn run_until_stopped(
        self,
        listeners: Listeners,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let workers = Workers::new(stop.clone());
        workers.spawn("intake", move |stop| Arc::clone(&self.intake).run(stop));
        workers.spawn("sender", move |stop| Arc::clone(&self.sender).run(stop));
        let (pool, metrics) = (self.pools.workers.clone(), self.metrics);
        workers.spawn("housekeeping", move |stop| {
            housekeeping::run(pool.clone(), metrics.clone(), stop)
        });
        let service = Service {
            name: "notify-svc",
            routes: grpc::routes(self.pools.calls.clone(), self.renderer, self.envelope),
            wake: self.outbox,
            pools: self.pools,
            bus: self.bus,
            server: self.server,
            callers: self.callers,
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
