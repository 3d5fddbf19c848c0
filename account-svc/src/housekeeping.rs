//! Deletes what nobody needs any more: kept answers after 24 hours, limits that limit nobody.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use usher_runtime::database::{self, Scope};

use sqlx::PgPool;

use crate::db;

const INTERVAL: Duration = Duration::from_mins(10);
/// Rows of one transaction: small enough to hold no lock for long.
const BATCH: i64 = 1_000;

/// Cleans up now and every ten minutes until `stop`.
pub async fn run(pool: PgPool, stop: CancellationToken) {
    loop {
        match clean_up(&pool).await {
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
pub async fn clean_up(pool: &PgPool) -> Result<u64, sqlx::Error> {
    let mut deleted = 0;
    loop {
        let mut tx = database::begin(pool, Scope::Platform).await?;
        let batch = db::stored_response::purge(&mut tx, BATCH).await?
            + db::login_throttle::purge(&mut tx, BATCH).await?
            + db::login_throttle::purge_sources(&mut tx, BATCH).await?
            + db::token::purge(&mut tx, BATCH).await?
            + db::audit::purge(&mut tx, BATCH).await?;
        tx.commit().await?;
        if batch == 0 {
            return Ok(deleted);
        }
        deleted += batch;
    }
}
