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

/// A hundred attempts from one source at once, then one in a second: offices share an address.
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
/// A hundred attempts on one email from all sources together at once, then one in half a minute: against
/// guesses that come from many sources. Sources from which the Person logged in before are exempt, so that
/// nobody can lock them out (the idea of device cookies: OWASP, Slow Down Online Guessing Attacks).
const PER_EMAIL: Limit = Limit {
    interval_seconds: 30,
    burst: 100,
};

/// A hundred new passwords for one link at once, then one in ten seconds: hashing is dear, and a link that its
/// caller never uses up could be asked for ever.
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
    password: SecretString,
    source: &str,
) -> Result<Login, Error> {
    let mut tx = database::begin(&context.pool, Scope::Organization(organization_id)).await?;
    let organization = organizations::read(&mut tx, organization_id).await;
    let _ = tx.rollback().await;
    organization?;

    let credentials = verify(context, canonical_email, source, password).await?;

    let mut tx = database::begin(&context.pool, Scope::Organization(organization_id)).await?;
    let login = db::account::record_login(&mut tx, organization_id, credentials.person_id).await?;
    tx.commit().await?;
    Ok(Login {
        person_id: credentials.person_id,
        account_id: login.as_ref().map(|login| login.account_id),
        previous_login_time: login.and_then(|login| login.previous_login_time),
    })
}

/// Checks email and password, and counts the attempt unless they belong together. All callers without a
/// `source` share one.
///
/// # Errors
/// If they do not belong together, or after too many attempts.
pub async fn verify(
    context: &Context,
    canonical_email: &str,
    source: &str,
    password: SecretString,
) -> Result<Credentials, Error> {
    let keys = Keys::new(canonical_email, source);
    let credentials = count_attempt(context, canonical_email, &keys).await?;
    let hash = credentials
        .as_ref()
        .map(|credentials| credentials.password_hash.clone());
    let is_right = context.passwords.verify(password, hash).await?;
    let credentials = credentials
        .filter(|_| is_right)
        .ok_or(Error::CredentialsInvalid)?;
    let mut tx = database::begin(&context.pool, Scope::Platform).await?;
    db::login_throttle::forget(&mut tx, &keys.email_and_source).await?;
    if keys.source.is_some() {
        db::login_throttle::remember_source(&mut tx, &keys.email_and_source).await?;
    }
    tx.commit().await?;
    Ok(credentials)
}

/// Counts a new password that is to be hashed for a link.
///
/// # Errors
/// After too many of them.
pub async fn count_activation(context: &Context, token: TokenHash) -> Result<(), Error> {
    let mut tx = database::begin(&context.pool, Scope::Platform).await?;
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

/// Counts an attempt before it is made, so that many at once are slowed too.
async fn count_attempt(
    context: &Context,
    canonical_email: &str,
    keys: &Keys,
) -> Result<Option<Credentials>, Error> {
    let mut tx = database::begin(&context.pool, Scope::Platform).await?;
    let allowed = attempt(&mut tx, keys).await?;
    let credentials = db::person::get_credentials(&mut tx, canonical_email).await?;
    tx.commit().await?;
    allowed.map_err(too_many_attempts)?;
    Ok(credentials)
}

/// The narrowest limit comes first: a source that is blocked must not use up the email's attempts.
async fn attempt(
    connection: &mut PgConnection,
    keys: &Keys,
) -> Result<Result<(), f64>, sqlx::Error> {
    if let Some(source) = &keys.source {
        let allowed = db::login_throttle::attempt(connection, source, PER_SOURCE).await?;
        if allowed.is_err() {
            return Ok(allowed);
        }
    }
    let pair = &keys.email_and_source;
    let allowed = db::login_throttle::attempt(connection, pair, PER_EMAIL_AND_SOURCE).await?;
    if allowed.is_err() {
        return Ok(allowed);
    }
    if keys.source.is_some() && db::login_throttle::is_known_source(connection, pair).await? {
        return Ok(Ok(()));
    }
    db::login_throttle::attempt(connection, &keys.email, PER_EMAIL).await
}

/// What attempts are counted under: hashes, so that no address is stored.
struct Keys {
    /// `None` if the caller does not say where the attempt comes from.
    source: Option<Vec<u8>>,
    email_and_source: Vec<u8>,
    email: Vec<u8>,
}

impl Keys {
    fn new(canonical_email: &str, source: &str) -> Self {
        Self {
            source: (!source.is_empty()).then(|| key(&["source", source])),
            email_and_source: key(&["email and source", canonical_email, source]),
            email: key(&["email", canonical_email]),
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
