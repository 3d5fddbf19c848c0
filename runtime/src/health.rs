//! Whether a service can do its work, told as it is.

use std::{sync::Arc, time::Duration};

use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{bus::EventBus, workers::Workers};

/// What the service depends on, as of the last check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readiness {
    /// The database answers. Without it no call succeeds, and the service is not ready.
    pub database: bool,
    /// The broker is connected. Without it calls succeed and events wait in the outbox: the service
    /// is ready and says that the broker is away.
    pub broker: bool,
    /// The background workers that are down. Calls succeed all the same: the service is ready and names
    /// them.
    pub workers_down: Vec<&'static str>,
    /// The service is draining: not ready any more.
    pub stopping: bool,
}

impl Readiness {
    /// Whether calls should be sent here.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.database && !self.stopping
    }

    /// What is wrong, each in one sentence for people.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.stopping {
            problems.push("the service is stopping".to_owned());
        }
        if !self.database {
            problems.push("the database does not answer: calls fail".to_owned());
        }
        if !self.broker {
            problems.push("the broker is not connected: events wait in the outbox".to_owned());
        }
        for worker in &self.workers_down {
            problems.push(format!(
                "the worker `{worker}` is down and is started again: the log says why"
            ));
        }
        problems
    }
}

const INTERVAL: Duration = Duration::from_secs(1);
/// Longest that the database may take to answer, a new connection included.
const DATABASE_LIMIT: Duration = Duration::from_secs(2);

/// Watches what a service depends on, and tells `grpc.health.v1` and a channel.
///
/// In `grpc.health.v1` the empty service name stands for the whole server; `database`, `broker` and `workers`
/// stand for what it depends on.
pub(crate) struct Watcher {
    pub(crate) database: Probe,
    pub(crate) bus: EventBus,
    pub(crate) workers: Workers,
    pub(crate) reporter: HealthReporter,
    pub(crate) readiness: Arc<watch::Sender<Readiness>>,
    /// The service is stopping: not ready from here on.
    pub(crate) stop: CancellationToken,
}

impl Watcher {
    /// Watches until `closed`.
    pub(crate) async fn run(mut self, closed: CancellationToken) {
        let mut last = None;
        loop {
            let stopping = self.stop.is_cancelled();
            if stopping && last.is_some() {
                // At once, and not after a database that may hang.
                self.readiness.send_modify(|now| now.stopping = true);
            }
            let now = Readiness {
                database: self.database.answers().await,
                broker: self.bus.is_connected(),
                workers_down: self.workers.down(),
                stopping,
            };
            if last.as_ref() != Some(&now) {
                report(&self.reporter, &now).await;
                log_change(last.as_ref(), &now);
                self.readiness.send_replace(now.clone());
                last = Some(now);
            }
            tokio::select! {
                () = sleep(INTERVAL) => {}
                () = self.stop.cancelled(), if !stopping => {}
                () = closed.cancelled() => return,
            }
        }
    }
}

/// Asks the database on a connection of its own: calls that use up the pool do not make it look away.
#[derive(Debug)]
pub(crate) struct Probe {
    options: Arc<PgConnectOptions>,
    connection: Option<PgConnection>,
}

impl Probe {
    pub(crate) fn new(options: Arc<PgConnectOptions>) -> Self {
        Self {
            options,
            connection: None,
        }
    }

    async fn answers(&mut self) -> bool {
        let known = self.connection.take();
        let asked = timeout(DATABASE_LIMIT, async {
            if let Some(connection) = known
                && let Ok(connection) = ask(connection).await
            {
                return Ok(connection);
            }
            ask(PgConnection::connect_with(&self.options).await?).await
        });
        // A connection that failed, or did not answer in time, is dropped and with it closed.
        self.connection = asked.await.ok().and_then(Result::ok);
        self.connection.is_some()
    }
}

async fn ask(mut connection: PgConnection) -> Result<PgConnection, sqlx::Error> {
    sqlx::query("SELECT 1").execute(&mut connection).await?;
    Ok(connection)
}

async fn report(reporter: &HealthReporter, readiness: &Readiness) {
    for (service, serving) in [
        ("", readiness.is_ready()),
        ("database", readiness.database),
        ("broker", readiness.broker),
        ("workers", readiness.workers_down.is_empty()),
    ] {
        let status = if serving {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        reporter.set_service_status(service, status).await;
    }
}

fn log_change(last: Option<&Readiness>, now: &Readiness) {
    let Readiness {
        database,
        broker,
        workers_down,
        stopping,
    } = now;
    let is_well = *database && *broker && workers_down.is_empty();
    // Right after the start nothing is connected yet: no reason to worry anybody.
    if is_well || *stopping || last.is_none() {
        tracing::info!(
            database,
            broker,
            ?workers_down,
            stopping,
            "readiness changed"
        );
    } else {
        tracing::warn!(
            database,
            broker,
            ?workers_down,
            stopping,
            "readiness changed"
        );
    }
}
