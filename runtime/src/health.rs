//! Whether a service can do its work, told as it is.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{bus::EventBus, database::without_data, workers::Workers};

/// What else does not work at present, of which people should know although calls succeed. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Problems(Arc<Mutex<BTreeMap<&'static str, String>>>);

impl Problems {
    /// Says in one sentence for people what is wrong with `part`; `None` if nothing is.
    pub fn set(&self, part: &'static str, problem: Option<String>) {
        match problem {
            Some(problem) => self.lock().insert(part, problem),
            None => self.lock().remove(part),
        };
    }

    fn list(&self) -> Vec<String> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the service depends on, as of the last check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// The database answers, is migrated and accepts writes, or what is wrong with it, in one sentence for people. Without it
    /// no call succeeds, and the service is not ready.
    pub database: Result<(), String>,
    /// The broker is connected, or why not, for people. Without it calls succeed and events wait in the outbox: the
    /// service is ready and says that the broker is away.
    pub broker: Result<(), String>,
    /// The background workers that are down. Calls succeed all the same: the service is ready and names
    /// them.
    pub workers_down: Vec<&'static str>,
    /// What else does not work, for people. Calls succeed all the same.
    pub others: Vec<String>,
    /// The service is draining: not ready any more.
    pub stopping: bool,
}

impl Default for Readiness {
    /// Before the first check.
    fn default() -> Self {
        Self {
            database: Err("the database has not been asked yet".to_owned()),
            broker: Err("connecting".to_owned()),
            workers_down: Vec::new(),
            others: Vec::new(),
            stopping: false,
        }
    }
}

impl Readiness {
    /// Whether calls should be sent here.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.database.is_ok() && !self.stopping
    }

    /// What is wrong, each in one sentence for people.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.stopping {
            problems.push("the service is stopping".to_owned());
        }
        problems.extend(self.database.clone().err());
        if let Err(why) = &self.broker {
            problems.push(format!(
                "the broker cannot be used, events wait in the outbox: {why}"
            ));
        }
        for worker in &self.workers_down {
            problems.push(format!(
                "the worker `{worker}` is down and is started again: the log says why"
            ));
        }
        problems.extend(self.others.iter().cloned());
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
    pub(crate) problems: Problems,
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
                database: self.database.check().await,
                broker: self.bus.problem().map_or(Ok(()), Err),
                workers_down: self.workers.down(),
                others: self.problems.list(),
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
    service: &'static str,
    table: &'static str,
    connection: Option<PgConnection>,
}

impl Probe {
    /// For the database of `service`, which is migrated if it has `table`.
    pub(crate) fn new(
        options: Arc<PgConnectOptions>,
        service: &'static str,
        table: &'static str,
    ) -> Self {
        Self {
            options,
            service,
            table,
            connection: None,
        }
    }

    /// What is wrong, in one sentence for people.
    async fn check(&mut self) -> Result<(), String> {
        let known = self.connection.take();
        let asked = timeout(DATABASE_LIMIT, async {
            if let Some(connection) = known
                && let Ok(answer) = state_of(connection, self.table).await
            {
                return Ok(answer);
            }
            // While connecting the server says nothing about rows: its text is safe, and tells a wrong
            // password from a wrong name.
            let connection = PgConnection::connect_with(&self.options)
                .await
                .map_err(|error| format!("DATABASE_URL: cannot connect: {error}"))?;
            state_of(connection, self.table)
                .await
                .map_err(|error| format!("the database refuses: {}", without_data(&error)))
        });
        // A connection that failed, or did not answer in time, is dropped and with it closed.
        let (connection, state) = asked
            .await
            .unwrap_or_else(|_| Err("the database does not answer: calls fail".to_owned()))?;
        self.connection = Some(connection);
        match state {
            (true, false) => Ok(()),
            (true, true) => Err(
                "the database accepts no writes: DATABASE_URL must lead to the primary, not to a standby"
                    .to_owned(),
            ),
            (false, _) => {
                let service = self.service;
                Err(format!(
                    "the database is not migrated: run `{service} migrate`"
                ))
            }
        }
    }
}

/// Whether the database has the table, and whether it is read-only, as a standby is.
async fn state_of(
    mut connection: PgConnection,
    table: &str,
) -> Result<(PgConnection, (bool, bool)), sqlx::Error> {
    let state = sqlx::query_as(
        "SELECT to_regclass($1) IS NOT NULL, current_setting('transaction_read_only')::boolean",
    )
    .bind(table)
    .fetch_one(&mut connection)
    .await?;
    Ok((connection, state))
}

async fn report(reporter: &HealthReporter, readiness: &Readiness) {
    for (service, serving) in [
        ("", readiness.is_ready()),
        ("database", readiness.database.is_ok()),
        ("broker", readiness.broker.is_ok()),
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
        // Whoever found them has logged them.
        others: _,
        stopping,
    } = now;
    if let Err(problem) = database
        && last.is_none_or(|last| last.database != now.database)
    {
        tracing::warn!(problem, "the database cannot be used");
    }
    // Why the broker is away is logged by the bus.
    let (database, broker) = (database.is_ok(), broker.is_ok());
    let is_well = database && broker && workers_down.is_empty();
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
