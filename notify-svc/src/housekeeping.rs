//! Measures the queue, and forgets what is of no use any more.

use std::time::Duration;

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use usher_runtime::{
    backoff::jittered,
    database::{Scope, begin},
};

use crate::{
    db::{deliveries::deliveries_due, inbox::inbox_delete_old, throttles::throttles_delete_passed},
    metrics::Metrics,
};

const INTERVAL: Duration = Duration::from_secs(15);

/// Rows that are deleted at a time: little enough to disturb nobody.
const BATCH: i64 = 1_000;

/// Works until `stop`.
pub async fn run(pool: PgPool, metrics: Metrics, stop: CancellationToken) {
    loop {
        if let Err(error) = work(&pool, &metrics).await {
            tracing::debug!(%error, "housekeeping failed; trying again later");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(jittered(INTERVAL)) => {}
        }
    }
}

async fn work(pool: &PgPool, metrics: &Metrics) -> Result<(), sqlx::Error> {
    let mut transaction = begin(pool, Scope::Platform).await?;
    let (length, age) = deliveries_due(&mut transaction).await?;
    metrics.queue(length, age);
    inbox_delete_old(&mut transaction, BATCH).await?;
    throttles_delete_passed(&mut transaction, BATCH).await?;
    transaction.commit().await
}
