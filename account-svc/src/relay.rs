//! The outbox of account-svc, as the relay works on it.

use std::time::Duration;

use sqlx::PgPool;
use usher_runtime::{
    bus::Message,
    database::{self, Scope},
    relay::OutboxStore,
};
use uuid::Uuid;

use crate::db;

/// Longer than a batch takes to be published: a relay that died is stood in for after this time.
const LEASE: Duration = Duration::from_secs(30);

/// The outbox table.
#[derive(Debug, Clone)]
pub struct Outbox {
    /// The service's database.
    pub pool: PgPool,
}

impl OutboxStore for Outbox {
    async fn claim(&self, limit: i64) -> Result<Vec<Message>, sqlx::Error> {
        let mut tx = database::begin(&self.pool, Scope::Platform).await?;
        let messages = db::outbox::claim(&mut tx, limit, LEASE).await?;
        tx.commit().await?;
        Ok(messages)
    }

    async fn delete(&self, event_ids: &[Uuid]) -> Result<(), sqlx::Error> {
        let mut tx = database::begin(&self.pool, Scope::Platform).await?;
        db::outbox::delete(&mut tx, event_ids).await?;
        tx.commit().await
    }

    async fn release(&self, event_ids: &[Uuid]) -> Result<(), sqlx::Error> {
        let mut tx = database::begin(&self.pool, Scope::Platform).await?;
        db::outbox::release(&mut tx, event_ids).await?;
        tx.commit().await
    }
}
