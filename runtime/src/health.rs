//! Whether a service can do its work, told as it is.

use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::bus::EventBus;

/// What the service depends on, as of the last check.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Readiness {
    /// The database answers. Without it no call succeeds, and the service is not ready.
    pub database: bool,
    /// The broker is connected. Without it calls succeed and events wait in the outbox: the service
    /// is ready and says that the broker is away.
    pub broker: bool,
    /// The service is draining: not ready any more.
    pub stopping: bool,
}

impl Readiness {
    /// Whether calls should be sent here.
    #[must_use]
    pub fn is_ready(self) -> bool {
        self.database && !self.stopping
    }
}

const INTERVAL: Duration = Duration::from_secs(1);
const DATABASE_TIMEOUT: Duration = Duration::from_secs(2);

/// Watches the dependencies until `stop`, and tells `grpc.health.v1` and the returned channel.
///
/// In `grpc.health.v1` the empty service name stands for the whole server; `database` and `broker` stand
/// for the dependencies.
#[must_use]
pub fn watch(
    pool: PgPool,
    bus: EventBus,
    reporter: HealthReporter,
    stop: CancellationToken,
) -> watch::Receiver<Readiness> {
    let (sender, receiver) = watch::channel(Readiness::default());
    tokio::spawn(async move {
        let mut last = None;
        loop {
            let readiness = Readiness {
                database: database_answers(&pool).await,
                broker: bus.is_connected(),
                stopping: stop.is_cancelled(),
            };
            if last != Some(readiness) {
                report(&reporter, readiness).await;
                log_change(last, readiness);
                sender.send_replace(readiness);
                last = Some(readiness);
            }
            if readiness.stopping {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = stop.cancelled() => {}
            }
        }
    });
    receiver
}

async fn database_answers(pool: &PgPool) -> bool {
    let query = sqlx::query("SELECT 1").execute(pool);
    matches!(
        tokio::time::timeout(DATABASE_TIMEOUT, query).await,
        Ok(Ok(_))
    )
}

async fn report(reporter: &HealthReporter, readiness: Readiness) {
    for (service, serving) in [
        ("", readiness.is_ready()),
        ("database", readiness.database),
        ("broker", readiness.broker),
    ] {
        let status = if serving {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        reporter.set_service_status(service, status).await;
    }
}

fn log_change(last: Option<Readiness>, now: Readiness) {
    let Readiness {
        database,
        broker,
        stopping,
    } = now;
    // Right after the start nothing is connected yet: no reason to worry anybody.
    if database && broker || stopping || last.is_none() {
        tracing::info!(database, broker, stopping, "readiness changed");
    } else {
        tracing::warn!(database, broker, stopping, "readiness changed");
    }
}
