//! Deletes what nobody needs any more: kept answers after 24 hours, limits that limit nobody.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{context::Context, db};

const INTERVAL: Duration = Duration::from_mins(10);
/// Rows of one transaction: small enough to hold no lock for long.
const BATCH: i64 = 1_000;

/// Cleans up now and every ten minutes until `stop`.
pub async fn run(context: Context, stop: CancellationToken) {
    loop {
        match clean_up(&context).await {
            Ok(0) => {}
            Ok(deleted) => tracing::info!(deleted, "outdated rows deleted"),
            Err(error) => tracing::warn!(%error, "outdated rows stay until the next round"),
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Deletes everything that is outdated; answers how many rows there were.
///
/// # Errors
/// If the database fails.
pub async fn clean_up(context: &Context) -> Result<u64, sqlx::Error> {
    let mut deleted = 0;
    loop {
        let mut tx = context.begin_platform().await?;
        let batch = db::idempotency::purge(&mut tx, BATCH).await?
            + db::login_throttle::purge(&mut tx, BATCH).await?;
        tx.commit().await?;
        if batch == 0 {
            return Ok(deleted);
        }
        deleted += batch;
    }
}
