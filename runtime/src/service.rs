//! The run of a service: from its listeners to the last event in its outbox.

use anyhow::Context as _;
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::service::Routes;
use usher_proto::rpc::RPCS;

use crate::{
    admin,
    bus::EventBus,
    callers::{self, Callers},
    config::{ListenArgs, ServerArgs},
    health,
    relay::{self, Wake},
    server,
};

/// What a service is made of.
pub struct Service {
    /// Its name in logs.
    pub name: &'static str,
    /// Its database.
    pub pool: PgPool,
    /// Its broker.
    pub bus: EventBus,
    /// How calls are served.
    pub server: ServerArgs,
    /// Who may call.
    pub callers: Callers,
    /// What is served. Health and reflection are added.
    pub routes: Routes,
    /// Told when events were committed to the outbox.
    pub wake: Wake,
    /// What else runs; ends by itself after the stop signal.
    pub work: TaskTracker,
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
    /// Runs until `stop`; then takes no more calls, finishes what is under way, publishes what is in the
    /// outbox, and returns.
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
        let readiness = health::watch(self.pool.clone(), self.bus.clone(), reporter, stop.clone());
        let mut routes = self.routes.add_service(health_service);
        server::add_reflection(&mut routes)?;

        // The relay goes last: the others still write events while they finish.
        let relay_stop = CancellationToken::new();
        let relay = tokio::spawn(relay::run(
            self.pool.clone(),
            self.bus,
            self.wake,
            relay_stop.clone(),
        ));
        if let Some((listener, registry)) = listeners.admin {
            let stop = stop.clone();
            tokio::spawn(async move {
                if let Err(error) = admin::serve(listener, registry, readiness, stop).await {
                    tracing::error!(%error, "the listener for health and metrics broke");
                }
            });
        }

        tracing::info!(grpc.address = %listeners.grpc.local_addr()?, "{name} serves");
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
        self.work.close();
        self.work.wait().await;
        relay_stop.cancel();
        relay.await?;
        self.pool.close().await;
        tracing::info!("{name} has stopped");
        served
    }
}
