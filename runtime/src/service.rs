//! The run of a service: from its listeners to the last event in its outbox.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{
    net::TcpListener,
    sync::watch,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::server::HealthReporter;
use usher_proto::rpc::RPCS;

use crate::{
    admin,
    bus::EventBus,
    callers::{self, Callers},
    config::{ListenArgs, ServerArgs},
    database::Pools,
    health::{Probe, Problems, Readiness, Watcher},
    outbox, relay, server,
    wake::Wake,
    workers::Workers,
};

/// Longest that the relay may take to publish what is in the outbox after everything else has stopped, and
/// to notice the stop.
const RELAY_LIMIT: Duration = Duration::from_secs(15);
/// Longest that the pools may take to close.
const CLOSE_LIMIT: Duration = Duration::from_secs(3);
/// Longest that health and metrics may take to answer their last question.
const OBSERVERS_LIMIT: Duration = Duration::from_secs(2);

/// What a service is made of.
pub struct Service {
    /// Its name in logs.
    pub name: &'static str,
    /// Its database.
    pub pools: Pools,
    /// A table of its database, with its schema: without it the database is not migrated, and the service not
    /// ready.
    pub table: &'static str,
    /// Its broker.
    pub bus: EventBus,
    /// How calls are served.
    pub server: ServerArgs,
    /// Who may call.
    pub callers: Callers,
    /// What is served. Health and reflection are added.
    pub routes: Routes,
    /// Wakes the relay: events are in the outbox.
    pub outbox: Wake,
    /// What else does not work at present.
    pub problems: Problems,
    /// What else runs. The relay is added, and what measures the outbox.
    pub workers: Workers,
}

/// Where a service listens.
pub struct Listeners {
    /// For gRPC.
    pub grpc: TcpListener,
    /// For `/metrics`, `/livez` and `/readyz`, with the metrics to show.
    pub admin: Option<(TcpListener, prometheus::Registry)>,
}

impl From<TcpListener> for Listeners {
    fn from(grpc: TcpListener) -> Self {
        Self { grpc, admin: None }
    }
}

impl Listeners {
    /// Listens on the addresses of the settings.
    ///
    /// # Errors
    /// If an address is taken; the message names the setting.
    pub async fn bind(args: &ListenArgs, registry: &prometheus::Registry) -> anyhow::Result<Self> {
        let listen = async |address, setting| {
            TcpListener::bind(address).await.with_context(|| {
                format!("{setting}: cannot listen on {address}; is another program there?")
            })
        };
        let grpc = listen(args.grpc_listen, "GRPC_LISTEN").await?;
        let admin = listen(args.admin_listen, "ADMIN_LISTEN").await?;
        Ok(Self {
            grpc,
            admin: Some((admin, registry.clone())),
        })
    }
}

impl Service {
    /// Runs until `stop`. Then, each with a limit: says that it is not ready; takes no more calls and finishes
    /// those that are under way; waits for its workers; publishes what is in the outbox; closes its
    /// connections; and ends the listener for health and metrics last.
    ///
    /// # Errors
    /// If a listener breaks, or an RPC declares no scope.
    pub async fn run_until_stopped(
        self,
        listeners: Listeners,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let name = self.name;
        callers::require_scopes(RPCS)?;
        let (reporter, health_service) = tonic_health::server::health_reporter();
        let health_service = health_service.max_decoding_message_size(server::MAX_HEALTH_BYTES);
        let mut routes = self.routes.clone().add_service(health_service);
        server::add_reflection(&mut routes, name)?;

        let observers_stop = CancellationToken::new();
        let observers = self.workers.group(observers_stop.clone());
        self.observe(&observers, reporter, listeners.admin, &stop)?;
        // The relay goes on longer: the others still write events while they finish.
        let relay_stop = CancellationToken::new();
        let relay = self.workers.group(relay_stop.clone());
        let (pool, bus, wake) = (self.pools.workers.clone(), self.bus, self.outbox);
        relay.spawn("relay", move |stop| {
            relay::run(pool.clone(), bus.clone(), wake.clone(), stop)
        });
        let pool = self.pools.workers.clone();
        relay.spawn("outbox_age", move |stop| {
            outbox::age::measure(pool.clone(), stop)
        });

        tracing::info!(grpc.address = %listeners.grpc.local_addr()?, "{name} serves");
        let serving = async {
            let served = server::serve(
                listeners.grpc,
                routes,
                self.callers,
                &self.server,
                stop.clone(),
            )
            .await;
            // Also when the listener broke: the rest must not go on without it.
            stop.cancel();
            served
        };
        let (served, deadline) = tokio::join!(serving, async {
            stop.cancelled().await;
            Instant::now() + self.server.shutdown_timeout
        });
        let left = deadline.saturating_duration_since(Instant::now());
        self.workers.finish(left).await;
        relay_stop.cancel();
        relay.finish(RELAY_LIMIT).await;
        if timeout(CLOSE_LIMIT, self.pools.close()).await.is_err() {
            tracing::warn!("connections to the database were still in use at the end");
        }
        observers_stop.cancel();
        observers.finish(OBSERVERS_LIMIT).await;
        tracing::info!("{name} has stopped");
        served
    }

    /// Watches what the service depends on, and shows it.
    fn observe(
        &self,
        observers: &Workers,
        reporter: HealthReporter,
        admin: Option<(TcpListener, prometheus::Registry)>,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let readiness = Arc::new(watch::Sender::new(Readiness::default()));
        let shown = readiness.subscribe();
        let database = self.pools.calls.connect_options();
        let (name, table) = (self.name, self.table);
        let (bus, workers, stop) = (self.bus.clone(), self.workers.clone(), stop.clone());
        let problems = self.problems.clone();
        observers.spawn("health", move |closed| {
            let watcher = Watcher {
                database: Probe::new(Arc::clone(&database), name, table),
                bus: bus.clone(),
                workers: workers.clone(),
                problems: problems.clone(),
                reporter: reporter.clone(),
                readiness: Arc::clone(&readiness),
                stop: stop.clone(),
            };
            watcher.run(closed)
        });
        if let Some((listener, registry)) = admin {
            let listener = listener.into_std()?;
            observers.spawn("admin", move |closed| {
                let listener = listener.try_clone().and_then(TcpListener::from_std);
                let (registry, shown) = (registry.clone(), shown.clone());
                async move {
                    let served = match listener {
                        Ok(listener) => admin::serve(listener, registry, shown, closed).await,
                        Err(error) => Err(error),
                    };
                    if let Err(error) = served {
                        tracing::error!(%error, "the listener for health and metrics broke");
                    }
                }
            });
        }
        Ok(())
    }
}
