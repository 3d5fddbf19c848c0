//! The service as a whole. What it works with is handed in, so that several services, or a test, can run
//! it in one process.

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
    config::AccountArgs, context::Context, db::MIGRATIONS, deliveries, grpc, housekeeping,
};

/// account-svc, ready to run.
pub struct Application {
    pool: PgPool,
    bus: EventBus,
    server: ServerArgs,
    callers: Callers,
    context: Context,
}

impl Application {
    /// Checks the settings and puts the parts together. Connects to nothing yet: the service starts, and says
    /// that it is not ready, while what it needs is away.
    ///
    /// # Errors
    /// If a setting cannot be used; the message names it.
    pub fn build(
        args: &AccountArgs,
        server: &ServerArgs,
        pool: PgPool,
        bus: EventBus,
    ) -> anyhow::Result<Self> {
        let context = Context::new(
            pool.clone(),
            relay::Wake::default(),
            args.key()?,
            args.rules(),
            args.max_concurrent_hashes.into(),
        );
        Ok(Self {
            pool,
            bus,
            server: server.clone(),
            callers: Callers::from_args(&server.callers)?,
            context,
        })
    }

    /// Runs until `stop`; then stops taking calls, finishes what is under way, publishes what is in the
    /// outbox, and returns.
    ///
    /// # Errors
    /// If a listener breaks.
    pub async fn run_until_stopped(
        self,
        listeners: Listeners,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let work = TaskTracker::new();
        let context = self.context;
        work.spawn(deliveries::run(
            context.clone(),
            self.bus.clone(),
            stop.clone(),
        ));
        work.spawn(housekeeping::run(context.clone(), stop.clone()));
        let service = Service {
            name: "account-svc",
            routes: grpc::routes(&context, self.server.max_message_bytes),
            wake: context.wake,
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
