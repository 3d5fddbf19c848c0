//! The service as a whole. What it works with is handed in, so that several services, or a test, can run
//! it in one process.

use std::sync::Arc;

use secrecy::SecretString;
use sqlx::PgPool;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use usher_runtime::{
    bus::EventBus,
    callers::Callers,
    config::ServerArgs,
    database, relay,
    service::{Listeners, Service},
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
    pool: PgPool,
    bus: EventBus,
    server: ServerArgs,
    callers: Callers,
    intake: Intake,
    sender: Sender<T>,
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
        pool: PgPool,
        bus: EventBus,
        transport: T,
    ) -> anyhow::Result<Self> {
        let settings: SenderSettings = args.sender(server.shutdown_timeout)?;
        let renderer = Arc::new(Renderer::new()?);
        let metrics = Metrics::new();
        let due = Due::default();
        let outbox = relay::Wake::default();
        Ok(Self {
            intake: Intake {
                pool: pool.clone(),
                bus: bus.clone(),
                limits: args.recipient_limits()?,
                due: due.clone(),
                outbox: outbox.clone(),
                metrics: metrics.clone(),
            },
            sender: Sender {
                pool: pool.clone(),
                transport,
                renderer: Arc::clone(&renderer),
                keys: args.keys()?,
                envelope: args.envelope(),
                settings,
                due,
                outbox: outbox.clone(),
                metrics: metrics.clone(),
            },
            pool,
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
        let work = TaskTracker::new();
        work.spawn(self.intake.run(stop.clone()));
        work.spawn(self.sender.run(stop.clone()));
        work.spawn(housekeeping::run(
            self.pool.clone(),
            self.metrics,
            stop.clone(),
        ));
        let service = Service {
            name: "notify-svc",
            routes: grpc::routes(self.pool.clone(), self.renderer, self.envelope),
            wake: self.outbox,
            pool: self.pool,
            bus: self.bus,
            server: self.server,
            callers: self.callers,
            work,
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
