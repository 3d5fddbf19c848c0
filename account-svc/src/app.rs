//! The service as a whole. What it works with is handed in, so that several services, or a test, can run
//! it in one process.

use std::sync::Arc;

use anyhow::Context as _;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use usher_runtime::{
    bus::EventBus,
    callers::Callers,
    change::Store,
    config::ServerArgs,
    consumer,
    database::{self, Pools},
    housekeeping, relay,
    service::{Listeners, Service},
    workers::Workers,
};

use crate::{
    config::AccountArgs,
    context::Context,
    db::{MIGRATIONS, time_zone::TimeZones},
    grpc,
    passwords::Passwords,
    retention,
    use_cases::{
        deliveries::Deliveries,
        name_frequencies::{self, ChangedNames},
    },
};

/// account-svc, ready to run.
pub struct Application {
    pools: Pools,
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
    pub fn build(args: &AccountArgs, server: &ServerArgs, pools: Pools) -> anyhow::Result<Self> {
        let rules = args.rules()?;
        let context = Context {
            store: Store {
                pool: pools.calls.clone(),
                outbox: relay::Wake::default(),
            },
            notify_key: Arc::new(args.key()?),
            passwords: Passwords::new(rules.password, args.max_concurrent_hashes.into())
                .context("MAX_CONCURRENT_HASHES")?,
            rules: Arc::new(rules),
            time_zones: TimeZones::default(),
            changed_names: ChangedNames::default(),
        };
        Ok(Self {
            pools,
            server: server.clone(),
            callers: Callers::from_args(&server.callers)?,
            context,
        })
    }

    /// Runs on `bus` until `stop`; then stops taking calls, finishes what is under way, publishes what is in the
    /// outbox, and returns.
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
        let context = self.context;
        let (reports, events) = (
            Arc::new(Deliveries {
                pool: self.pools.workers.clone(),
                outbox: context.store.outbox.clone(),
            }),
            bus.clone(),
        );
        workers.spawn("deliveries", move |stop| {
            consumer::run(Arc::clone(&reports), events.clone(), stop)
        });
        let (pool, purges) = (self.pools.workers.clone(), retention::purges());
        workers.spawn("housekeeping", move |stop| {
            housekeeping::run(pool.clone(), Arc::clone(&purges), stop)
        });
        let (pool, changed) = (self.pools.workers.clone(), context.changed_names.clone());
        workers.spawn("name_frequencies", move |stop| {
            name_frequencies::run(pool.clone(), changed.clone(), stop)
        });
        let service = Service {
            name: "account-svc",
            table: "public.accounts",
            routes: grpc::routes(&context, self.server.max_message_bytes),
            outbox: context.store.outbox,
            pools: self.pools,
            bus,
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
