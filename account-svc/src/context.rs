//! What every use case works with.

use std::sync::Arc;

use secrecy::SecretString;
use sqlx::PgPool;
use tokio::sync::Semaphore;
use tracing::{Span, field};
use usher_runtime::{
    database::{self, Scope, Tx},
    relay::Wake,
    seal::PublicKey,
};
use uuid::Uuid;

use crate::{
    domain::{
        link::LinkRules,
        password::{self, PasswordPolicy},
    },
    error::Error,
};

/// Rules that the deployment sets.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// What a password must be.
    pub password: PasswordPolicy,
    /// Which URLs organizations may give.
    pub links: LinkRules,
}

/// Database, outbox, keys and rules. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    pool: PgPool,
    /// Wakes the relay when events were committed.
    pub wake: Wake,
    /// What tokens are sealed to.
    pub notify_key: Arc<PublicKey>,
    /// Rules of the deployment.
    pub rules: Rules,
    /// Bounds the processors and the memory (19 MiB each) that hashing takes.
    hashing: Arc<Semaphore>,
}

impl Context {
    /// A context that hashes up to `max_hashing` passwords at the same time.
    #[must_use]
    pub fn new(
        pool: PgPool,
        wake: Wake,
        notify_key: PublicKey,
        rules: Rules,
        max_hashing: usize,
    ) -> Self {
        Self {
            pool,
            wake,
            notify_key: Arc::new(notify_key),
            rules,
            hashing: Arc::new(Semaphore::new(max_hashing)),
        }
    }

    /// The same, on the connections of another pool.
    #[must_use]
    pub fn on(&self, pool: PgPool) -> Self {
        Self {
            pool,
            ..self.clone()
        }
    }

    /// Begins a transaction that sees one organization.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn begin(&self, organization_id: Uuid) -> Result<Tx, sqlx::Error> {
        // Declared by the span of every call.
        Span::current().record("organization.id", field::display(organization_id));
        database::begin(&self.pool, Scope::Organization(organization_id)).await
    }

    /// Begins a transaction that sees the whole platform.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn begin_platform(&self) -> Result<Tx, sqlx::Error> {
        database::begin(&self.pool, Scope::Platform).await
    }

    /// Hashes a password beside the async threads.
    ///
    /// # Errors
    /// If there is no memory or randomness to be had.
    pub async fn hash_password(&self, password: SecretString) -> Result<String, Error> {
        self.while_hashing(move || password::hash(&password)).await
    }

    /// Checks a password beside the async threads.
    ///
    /// # Errors
    /// If the hash is malformed or there is no memory to be had.
    pub async fn verify_password(
        &self,
        password: SecretString,
        hash: String,
    ) -> Result<bool, Error> {
        self.while_hashing(move || password::verify(&password, &hash))
            .await
    }

    async fn while_hashing<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, argon2::password_hash::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let internal = |error: &dyn std::fmt::Display| Error::Internal(format!("hashing: {error}"));
        let permit = Arc::clone(&self.hashing)
            .acquire_owned()
            .await
            .map_err(|error| internal(&error))?;
        tokio::task::spawn_blocking(move || {
            let result = work();
            drop(permit);
            result
        })
        .await
        .map_err(|error| internal(&error))?
        .map_err(|error| internal(&error))
    }
}
