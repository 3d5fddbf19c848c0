//! Login: email and password, slowed for each source, each email, and each pair of them.

use std::time::Duration;

use aws_lc_rs::digest;
use data_encoding::HEXLOWER;
use secrecy::SecretString;
use sqlx::PgConnection;
use time::OffsetDateTime;
use usher_runtime::database::{self, Scope};
use uuid::Uuid;

use super::organizations;
use crate::{
    context::Context,
    db::{self, login_throttle::Limit, person::Credentials},
    domain::token::TokenHash,
    error::Error,
};

/// A hundred attempts from one source at once, then one in a second: offices share an address. What an
/// organization says of its clients' sources counts for that organization alone.
const PER_SOURCE: Limit = Limit {
    interval_seconds: 1,
    burst: 100,
};
/// Ten attempts on one email from one source at once, then one in half a minute (OWASP Authentication Cheat
/// Sheet, login throttling).
const PER_EMAIL_AND_SOURCE: Limit = Limit {
    interval_seconds: 30,
    burst: 10,
};
/// A hundred attempts on one email from all sources of an organization together at once, then one in half a
/// minute: against guesses that come from many sources. Sources from which the Person logged in before are
/// exempt, so that nobody can lock them out (the idea of device cookies: OWASP, Slow Down Online Guessing
/// Attacks).
const PER_EMAIL: Limit = Limit {
    interval_seconds: 30,
    burst: 100,
};
/// The same for all organizations together: more than one organization can use up, so that none locks the
/// clients of others out.
const PER_EMAIL_ON_PLATFORM: Limit = Limit {
    interval_seconds: 10,
    burst: 300,
};

/// A hundred new passwords for one link at once, then one in ten seconds: hashing is expensive, and a link that
/// is never used up could be sent any number of times.
const PER_LINK: Limit = Limit {
    interval_seconds: 10,
    burst: 100,
};

/// A login that succeeded.
#[derive(Debug)]
pub struct Login {
    /// The Person.
    pub person_id: Uuid,
    /// Their account in the organization, if they have one there.
    pub account_id: Option<Uuid>,
    /// The login before this one, through this organization.
    pub previous_login_time: Option<OffsetDateTime>,
}

/// Checks email and password and records the login.
///
/// # Errors
/// If they do not belong together, without saying which is wrong, or after too many attempts.
pub async fn authenticate(
    context: &Context,
    organization_id: Uuid,
    canonical_email: &str,
    source: &str,
    password: SecretString,
) -> Result<Login, Error> {
    let (person_id, login) = check_password(
        context,
        organization_id,
        canonical_email,
        source,
        password,
        async |tx, person_id| Ok(db::account::record_login(tx, organization_id, person_id).await?),
    )
    .await?;
    Ok(Login {
        person_id,
        account_id: login.as_ref().map(|login| login.account_id),
        previous_login_time: login.and_then(|login| login.previous_login_time),
    })
}

/// Checks email and password as a login does, and records none; returns the Person.
///
/// # Errors
/// As [`authenticate`].
pub async fn verify(
    context: &Context,
    organization_id: Uuid,
    canonical_email: &str,
    source: &str,
    password: SecretString,
) -> Result<Uuid, Error> {
    let (person_id, ()) = check_password(
        context,
        organization_id,
        canonical_email,
        source,
        password,
        async |_, _| Ok(()),
    )
    .await?;
    Ok(person_id)
}

/// Checks email and password; returns the Person, with what `succeeded` did in the transaction that takes the attempt
/// back. Only wrong passwords count as attempts. All callers without a `source` share one.
///
/// # Errors
/// If the two do not belong together, or after too many attempts.
async fn check_password<T>(
    context: &Context,
    organization_id: Uuid,
    canonical_email: &str,
    source: &str,
    password: SecretString,
    succeeded: impl AsyncFnOnce(&mut PgConnection, Uuid) -> Result<T, Error>,
) -> Result<(Uuid, T), Error> {
    let keys = Keys::new(organization_id, canonical_email, source);
    let mut tx = database::begin(&context.store.pool, Scope::Platform).await?;
    organizations::read(&mut tx, organization_id).await?;
    let attempt = match count(&mut tx, canonical_email, &keys).await? {
        Ok(attempt) => attempt,
        Err(seconds) => {
            // No password is checked, so nothing counts, also under the limits that let it through before.
            tx.rollback().await?;
            return Err(too_many_attempts(seconds));
        }
    };
    tx.commit().await?;

    let person_id = attempt.check(context, organization_id, password).await?;

    let mut tx = database::begin(&context.store.pool, Scope::Platform).await?;
    attempt.succeed(&mut tx).await?;
    let done = succeeded(&mut tx, person_id).await?;
    tx.commit().await?;
    Ok((person_id, done))
}

/// An attempt that was counted and may be made.
struct Attempt<'a> {
    keys: &'a Keys,
    /// What it was counted under, in the order of locks.
    counted: Vec<Counted<'a>>,
    credentials: Option<Credentials>,
}

impl Attempt<'_> {
    /// Checks the password, outside of any transaction, since hashing takes long; returns the Person.
    async fn check(
        &self,
        context: &Context,
        organization_id: Uuid,
        password: SecretString,
    ) -> Result<Uuid, Error> {
        let hash = self.credentials.as_ref().map(|it| it.password_hash.clone());
        let result = context
            .passwords
            .verify(organization_id, password, hash)
            .await;
        if let Err(error) = result {
            // Nothing was checked: who repeats the call as told must not use up attempts.
            let mut tx = database::begin(&context.store.pool, Scope::Platform).await?;
            db::login_throttle::give_back(&mut tx, &self.counted).await?;
            tx.commit().await?;
            return Err(error);
        }
        self.credentials
            .as_ref()
            .filter(|_| matches!(result, Ok(true)))
            .map(|credentials| credentials.person_id)
            .ok_or(Error::CredentialsInvalid)
    }

    /// The password was right: takes back what was counted, forgets wrong ones from the same source, and remembers
    /// the source.
    async fn succeed(&self, connection: &mut PgConnection) -> Result<(), Error> {
        let pair = &self.keys.email_and_source;
        db::login_throttle::give_back(connection, &self.counted).await?;
        db::login_throttle::forget(connection, pair).await?;
        if self.keys.source.is_some() {
            db::login_throttle::remember_source(connection, pair).await?;
        }
        Ok(())
    }
}

/// Limits how many new passwords are hashed for one link, and counts this one.
///
/// # Errors
/// After too many of them.
pub async fn limit_hashing(context: &Context, token: TokenHash) -> Result<(), Error> {
    let mut tx = database::begin(&context.store.pool, Scope::Platform).await?;
    let link = key(&["link", &HEXLOWER.encode(&token.0)]);
    let allowed = db::login_throttle::attempt(&mut tx, &link, PER_LINK).await?;
    tx.commit().await?;
    allowed.map_err(too_many_attempts)
}

fn too_many_attempts(seconds: f64) -> Error {
    Error::TooManyAttempts {
        retry_after: Duration::from_secs_f64(seconds.ceil()),
    }
}

/// A key under which an attempt was counted, with its limit.
type Counted<'a> = (&'a [u8], Limit);

/// Counts an attempt before it is made, so that many at once are slowed too. `Err` holds the seconds to wait.
async fn count<'a>(
    connection: &mut PgConnection,
    canonical_email: &str,
    keys: &'a Keys,
) -> Result<Result<Attempt<'a>, f64>, Error> {
    let counted = match attempt(connection, keys).await? {
        Ok(counted) => counted,
        Err(seconds) => return Ok(Err(seconds)),
    };
    let credentials = db::person::get_credentials(connection, canonical_email).await?;
    Ok(Ok(Attempt {
        keys,
        counted,
        credentials,
    }))
}

/// The narrowest limit comes first: calls from a source that is blocked do not keep the rows of the email, which all
/// sources share, from others.
async fn attempt<'a>(
    connection: &mut PgConnection,
    keys: &'a Keys,
) -> Result<Result<Vec<Counted<'a>>, f64>, sqlx::Error> {
    let pair = keys.email_and_source.as_slice();
    let source = keys.source.as_deref().map(|source| (source, PER_SOURCE));
    let narrow = source.into_iter().chain([(pair, PER_EMAIL_AND_SOURCE)]);
    let wide = [
        (keys.email.as_slice(), PER_EMAIL),
        (keys.email_on_platform.as_slice(), PER_EMAIL_ON_PLATFORM),
    ];
    let mut counted = Vec::with_capacity(4);
    for (key, limit) in narrow {
        if let Err(seconds) = db::login_throttle::attempt(connection, key, limit).await? {
            return Ok(Err(seconds));
        }
        counted.push((key, limit));
    }
    if source.is_some() && db::login_throttle::is_known_source(connection, pair).await? {
        return Ok(Ok(counted));
    }
    for (key, limit) in wide {
        if let Err(seconds) = db::login_throttle::attempt(connection, key, limit).await? {
            return Ok(Err(seconds));
        }
        counted.push((key, limit));
    }
    Ok(Ok(counted))
}

/// What attempts are counted under: hashes, so that no address is stored.
struct Keys {
    /// `None` if the caller does not say where the attempt comes from.
    source: Option<Vec<u8>>,
    email_and_source: Vec<u8>,
    email: Vec<u8>,
    email_on_platform: Vec<u8>,
}

impl Keys {
    fn new(organization_id: Uuid, canonical_email: &str, source: &str) -> Self {
        let organization = &organization_id.to_string();
        Self {
            source: (!source.is_empty()).then(|| key(&["source", organization, source])),
            email_and_source: key(&["email and source", organization, canonical_email, source]),
            email: key(&["email", organization, canonical_email]),
            email_on_platform: key(&["email on platform", canonical_email]),
        }
    }
}

fn key(parts: &[&str]) -> Vec<u8> {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part.as_bytes());
        context.update(b"\0");
    }
    context.finish().as_ref().to_vec()
}
