//! Housekeeping: each purge to its end, one does not stop the others, and the stop signal counts.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use usher_runtime::housekeeping::{Purge, purge_all};
use usher_tests::{Database, ServiceName};

/// A purge of so many rows, and how many are left.
fn purge_of(rows: u64, stop: Option<CancellationToken>) -> (Purge, Arc<AtomicU64>) {
    let left = Arc::new(AtomicU64::new(rows));
    let counter = Arc::clone(&left);
    let purge = Purge::new("rows", move |_, limit| {
        let left = counter.load(Ordering::Relaxed);
        let deleted = left.min(limit.unsigned_abs());
        counter.store(left - deleted, Ordering::Relaxed);
        if let Some(stop) = &stop {
            stop.cancel();
        }
        Box::pin(async move { Ok(deleted) })
    });
    (purge, left)
}

#[tokio::test]
async fn every_purge_runs_to_its_end_also_after_one_that_fails() {
    let database = Database::create(ServiceName::Account).await;
    let database = database.expect("database");
    let pool = PgPool::connect(&database.owner_url()).await.expect("pool");
    let broken = Purge::new("broken", |connection, _| {
        Box::pin(async move {
            sqlx::query("SELECT 1 / 0").execute(connection).await?;
            Ok(0)
        })
    });
    let (many, many_left) = purge_of(2_500, None);
    let (few, few_left) = purge_of(7, None);
    let stop = CancellationToken::new();
    purge_all(&pool, &[broken, many, few], &stop).await;
    assert_eq!(many_left.load(Ordering::Relaxed), 0);
    assert_eq!(few_left.load(Ordering::Relaxed), 0);
    pool.close().await;
}

#[tokio::test]
async fn it_stops_between_two_batches() {
    let database = Database::create(ServiceName::Account).await;
    let database = database.expect("database");
    let pool = PgPool::connect(&database.owner_url()).await.expect("pool");
    let stop = CancellationToken::new();
    let (many, many_left) = purge_of(1_000_000, Some(stop.clone()));
    let (next, next_left) = purge_of(1, None);
    purge_all(&pool, &[many, next], &stop).await;
    assert_eq!(many_left.load(Ordering::Relaxed), 999_000);
    assert_eq!(next_left.load(Ordering::Relaxed), 1);
    pool.close().await;
}
