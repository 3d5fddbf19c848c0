//! The service as a whole. What it works with is handed in, so that several services, or a test, can run
//! it in one process.

use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{Connection as _, PgConnection, PgPool};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use usher_runtime::{admin, bus::EventBus, config::ServerArgs, health, relay, server};

use crate::{
    config::AccountArgs, context::Context, db::MIGRATIONS, deliveries, grpc, housekeeping,
    relay::Outbox,
};

/// account-svc, ready to run.
pub struct Application {
    pool: PgPool,
    bus: EventBus,
    server: ServerArgs,
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
            context,
        })
    }

    /// Runs until `stop`; then stops taking calls, finishes what is under way, publishes what is in the
    /// outbox, and returns. `admin` serves health and metrics.
    ///
    /// # Errors
    /// If a listener breaks.
    pub async fn run_until_stopped(
        self,
        grpc_listener: TcpListener,
        admin: Option<(TcpListener, prometheus::Registry)>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let (reporter, health_service) = tonic_health::server::health_reporter();
        let readiness = health::watch(self.pool.clone(), self.bus.clone(), reporter, stop.clone());
        let mut routes =
            grpc::routes(&self.context, self.server.max_message_bytes).add_service(health_service);
        server::add_reflection(&mut routes)?;
        tracing::info!(
            grpc.address = %grpc_listener.local_addr()?,
            "account-svc serves"
        );

        let work = TaskTracker::new();
        work.spawn(deliveries::run(
            self.context.clone(),
            self.bus.clone(),
            stop.clone(),
        ));
        work.spawn(housekeeping::run(self.context.clone(), stop.clone()));
        // The relay goes last: the others still write events while they finish.
        let relay_stop = CancellationToken::new();
        let relay = tokio::spawn(relay::run(
            Outbox {
                pool: self.pool.clone(),
            },
            self.bus.clone(),
            self.context.wake.clone(),
            relay_stop.clone(),
        ));
        if let Some((listener, registry)) = admin {
            let stop = stop.clone();
            tokio::spawn(async move {
                if let Err(error) = admin::serve(listener, registry, readiness, stop).await {
                    tracing::error!(%error, "the listener for health and metrics broke");
                }
            });
        }

        let served = server::serve(grpc_listener, routes, &self.server, stop.clone()).await;
        // Also when the listener broke: the rest must not go on without it.
        stop.cancel();
        work.close();
        work.wait().await;
        relay_stop.cancel();
        relay.await?;
        self.pool.close().await;
        tracing::info!("account-svc has stopped");
        served
    }
}

/// Brings a database up to date, as whoever `url` logs in.
///
/// # Errors
/// If the database is away or a migration fails.
pub async fn migrate(url: &SecretString) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(url.expose_secret())
        .await
        .context("DATABASE_URL: the database cannot be reached")?;
    MIGRATIONS.run(&mut connection).await?;
    connection.close().await?;
    tracing::info!("the database is up to date");
    Ok(())
}
