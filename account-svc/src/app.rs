//! The service as a whole. What it works with is handed in, so that several services, or a test, can run
//! it in one process.

use std::sync::Arc;

use anyhow::Context as _;
use secrecy::SecretString;
use sqlx::PgPool;
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
    seal::PublicKey,
    service::{Listeners, Service},
    wake::Wake,
    workers::Workers,
};

use crate::{
    config::AccountArgs,
    context::{Context, Rules},
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
    notify_key: PublicKey,
    rules: Rules,
    passwords: Passwords,
}

impl Application {
    /// Checks the settings and puts the parts together. Connects to nothing yet: the service starts, and says
    /// that it is not ready, while what it needs is away.
    ///
    /// # Errors
    /// If a setting cannot be used; the message names it.
    pub fn build(args: &AccountArgs, server: &ServerArgs, pools: Pools) -> anyhow::Result<Self> {
        let rules = args.rules()?;
        Ok(Self {
            pools,
            server: server.clone(),
            callers: Callers::from_args(&server.callers)?,
            notify_key: args.key()?,
            passwords: Passwords::new(rules.password, args.max_concurrent_hashes.into())
                .context("MAX_CONCURRENT_HASHES")?,
            rules,
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
        let context = Context {
            store: Store::new(self.pools.calls.clone(), Wake::default()),
            notify_key: Arc::new(self.notify_key),
            rules: Arc::new(self.rules),
            passwords: self.passwords,
            time_zones: TimeZones::default(),
            changed_names: ChangedNames::default(),
            workers: workers.clone(),
        };
        spawn_workers(&context, &self.pools.workers, &bus);
        let service = Service {
            name: "account-svc",
            table: "public.accounts",
            routes: grpc::routes(&context, self.server.max_message_bytes),
            outbox: context.store.outbox,
            pools: self.pools,
            bus,
            server: self.server,
            callers: self.callers,
            problems: Problems::default(),
            workers,
        };
        service.run_until_stopped(listeners, stop).await
    }
}

/// Starts what runs in the background, on connections of `pool`.
fn spawn_workers(context: &Context, pool: &PgPool, bus: &EventBus) {
    let workers = &context.workers;
    let reports = Arc::new(Deliveries {
        pool: pool.clone(),
        outbox: context.store.outbox.clone(),
    });
    let events = bus.clone();
    workers.spawn("deliveries", move |stop| {
        consumer::run(Arc::clone(&reports), events.clone(), stop)
    });
    let (kept, purges) = (pool.clone(), retention::purges());
    workers.spawn("housekeeping", move |stop| {
        housekeeping::run(kept.clone(), Arc::clone(&purges), stop)
    });
    let (counted, changed) = (pool.clone(), context.changed_names.clone());
    workers.spawn("name_frequencies", move |stop| {
        name_frequencies::run(counted.clone(), changed.clone(), stop)
    });
}

/// Brings a database up to date, as whoever `url` logs in.
///
/// # Errors
/// If the database is away or a migration fails.
pub async fn migrate(url: &SecretString) -> anyhow::Result<()> {
    database::migrate(url, &MIGRATIONS).await
}
