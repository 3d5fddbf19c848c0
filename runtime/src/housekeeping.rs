//! Deletes what is no longer needed, in small transactions.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use sqlx::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;

use crate::{
    backoff::jittered,
    database::{Scope, begin, within, without_data},
};

/// Time between two rounds.
const INTERVAL: Duration = Duration::from_mins(10);

/// Rows of one transaction: few enough to hold no lock for long.
const BATCH: i64 = 1_000;

/// Longest time of one transaction.
const DEADLINE: Duration = Duration::from_secs(30);

type Delete = dyn for<'c> Fn(&'c mut PgConnection, i64) -> BoxFuture<'c, Result<u64, sqlx::Error>>
    + Send
    + Sync;

/// One kind of rows that are deleted when they are old.
pub struct Purge {
    name: &'static str,
    delete: Box<Delete>,
}

impl Purge {
    /// A purge whose `delete` removes at most as many rows as it is told, and returns how many it removed. It
    /// works in a transaction that sees the whole platform. `name` stands in the log.
    pub fn new(
        name: &'static str,
        delete: impl for<'c> Fn(&'c mut PgConnection, i64) -> BoxFuture<'c, Result<u64, sqlx::Error>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self {
            name,
            delete: Box::new(delete),
        }
    }
}

/// Runs all purges now and about every ten minutes, until `stop`.
pub async fn run(pool: PgPool, purges: Arc<[Purge]>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        purge_all(&pool, &purges, &stop).await;
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(jittered(INTERVAL)) => {}
        }
    }
}

/// Runs each purge until nothing is left to delete. One that fails is logged, and left to the next round. Ends
/// between two transactions when `stop` comes.
pub async fn purge_all(pool: &PgPool, purges: &[Purge], stop: &CancellationToken) {
    for purge in purges {
        let mut deleted = 0;
        while !stop.is_cancelled() {
            match within(DEADLINE, purge_batch(pool, purge)).await {
                Ok(rows) => {
                    deleted += rows;
                    if rows < BATCH.unsigned_abs() {
                        break;
                    }
                }
                Err(error) => {
                    let error = without_data(&error);
                    tracing::warn!(
                        purge = purge.name,
                        error,
                        "old rows stay until the next round"
                    );
                    break;
                }
            }
        }
        if deleted > 0 {
            tracing::info!(purge = purge.name, deleted, "old rows deleted");
        }
    }
}

async fn purge_batch(pool: &PgPool, purge: &Purge) -> Result<u64, sqlx::Error> {
    let mut tx = begin(pool, Scope::Platform).await?;
    let rows = (purge.delete)(&mut tx, BATCH).await?;
    tx.commit().await?;
    Ok(rows)
}
