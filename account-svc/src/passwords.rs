//! Hashing of passwords, apart from other work: on threads of its own, with a bounded queue.

use std::sync::{Arc, OnceLock};

use secrecy::SecretString;
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::{
    domain::password::{self, PasswordPolicy},
    error::Error,
};

/// Calls that may wait for each hash that is worked on: a second or so of waiting. More would only pile up,
/// and take the places of calls that hash nothing.
const WAITING_PER_HASH: usize = 32;

/// Hashes and checks passwords. Clones share the limits.
#[derive(Clone)]
pub struct Passwords {
    /// What a new password must be.
    policy: PasswordPolicy,
    /// Calls that hash or wait for it.
    admitted: Arc<Semaphore>,
    /// Bounds the processors and the memory (19 MiB each) that hashing takes.
    hashing: Arc<Semaphore>,
    /// What a password is checked against where nobody has the email: the answer takes as long.
    hash_of_nobody: Arc<OnceLock<String>>,
}

impl Passwords {
    /// Hashes up to `max_concurrent` passwords at the same time.
    #[must_use]
    pub fn new(policy: PasswordPolicy, max_concurrent: usize) -> Self {
        Self {
            policy,
            admitted: Arc::new(Semaphore::new(max_concurrent * (1 + WAITING_PER_HASH))),
            hashing: Arc::new(Semaphore::new(max_concurrent)),
            hash_of_nobody: Arc::default(),
        }
    }

    /// Checks a new password against the policy and what is known of the person, and hashes it.
    ///
    /// # Errors
    /// If a rule refuses it, or too many calls wait already.
    pub async fn hash_new(
        &self,
        password: SecretString,
        personal: Vec<String>,
    ) -> Result<String, Error> {
        let policy = self.policy;
        self.run(move || {
            let personal: Vec<&str> = personal.iter().map(String::as_str).collect();
            policy.check(&password, &personal)?;
            Ok(password::hash(&password)?)
        })
        .await
    }

    /// Whether `password` is the one that `hash` was made of. Takes as long without a hash.
    ///
    /// # Errors
    /// If the hash is malformed, or too many calls wait already.
    pub async fn verify(
        &self,
        password: SecretString,
        hash: Option<String>,
    ) -> Result<bool, Error> {
        let nobody = Arc::clone(&self.hash_of_nobody);
        self.run(move || {
            if let Some(hash) = hash {
                return Ok(password::verify(&password, &hash)?);
            }
            password::verify(&password, hash_of_nobody(&nobody)?)?;
            Ok(false)
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let admitted = Arc::clone(&self.admitted)
            .try_acquire_owned()
            .map_err(|_| Error::Overloaded)?;
        let hashing = Arc::clone(&self.hashing)
            .acquire_owned()
            .await
            .map_err(|error| Error::Internal(error.to_string()))?;
        // Both permits go with the work: a caller that leaves does not let another one in before it ends.
        tokio::task::spawn_blocking(move || {
            let result = work();
            drop((admitted, hashing));
            result
        })
        .await
        .map_err(|error| Error::Internal(format!("hashing: {error}")))?
    }
}

fn hash_of_nobody(known: &OnceLock<String>) -> Result<&str, Error> {
    if let Some(hash) = known.get() {
        return Ok(hash);
    }
    let hash = password::hash(&SecretString::from(Uuid::now_v7().to_string()))?;
    Ok(known.get_or_init(|| hash))
}

impl From<argon2::password_hash::Error> for Error {
    fn from(error: argon2::password_hash::Error) -> Self {
        Self::Internal(format!("hashing: {error}"))
    }
}
