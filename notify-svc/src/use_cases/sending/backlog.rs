//! Measures how many emails are due and not sent.

use std::time::Duration;

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use usher_runtime::{
    backoff::jittered,
    database::{Scope, begin, within, without_data},
};

use crate::{db::delivery, metrics::Metrics};

const INTERVAL: Duration = Duration::from_secs(15);

/// Measures until `stop`.
pub async fn measure(pool: PgPool, metrics: Metrics, stop: CancellationToken) {
    loop {
        if let Err(error) = within(INTERVAL, record(&pool, &metrics)).await {
            tracing::debug!(
                error = without_data(&error),
                "the emails that are due cannot be counted"
            );
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(jittered(INTERVAL)) => {}
        }
    }
}

async fn record(pool: &PgPool, metrics: &Metrics) -> Result<(), sqlx::Error> {
    let mut tx = begin(pool, Scope::Platform).await?;
    let (length, age) = delivery::due(&mut tx).await?;
    tx.commit().await?;
    metrics.queue(length, age);
    Ok(())
}
