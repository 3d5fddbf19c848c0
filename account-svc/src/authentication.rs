//! Login: email and password, slowed for each email and each source.

use std::{sync::OnceLock, time::Duration};

use aws_lc_rs::digest;
use secrecy::SecretString;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    context::Context,
    db::{self, login_throttle::Limit, person::Credentials},
    error::Error,
};

/// Ten attempts on one email at once, then one in half a minute (OWASP Authentication Cheat Sheet, login
/// throttling).
const PER_EMAIL: Limit = Limit {
    interval_seconds: 30,
    burst: 10,
};
/// A hundred attempts from one source at once, then one in a second: offices share an address.
const PER_SOURCE: Limit = Limit {
    interval_seconds: 1,
    burst: 100,
};

/// A login that succeeded.
#[derive(Debug)]
pub struct Login {
    /// The Person.
    pub person_id: Uuid,
    /// Their account in the organization, if they have one there.
    pub account_id: Option<Uuid>,
    /// The login before this one.
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
    let mut tx = context.begin(organization_id).await?;
    db::organization::get(&mut tx, organization_id)
        .await?
        .ok_or(Error::OrganizationNotFound(organization_id))?;
    tx.rollback().await?;

    let credentials = verify(context, canonical_email, source, password).await?;

    let mut tx = context.begin_platform().await?;
    db::person::record_login(&mut tx, credentials.person_id).await?;
    let account_id =
        db::account::find_by_person(&mut tx, organization_id, credentials.person_id).await?;
    tx.commit().await?;
    Ok(Login {
        person_id: credentials.person_id,
        account_id,
        previous_login_time: credentials.last_login_time,
    })
}

/// Checks email and password, and counts the attempt unless they belong together. An empty `source` is not
/// limited.
///
/// # Errors
/// If they do not belong together, or after too many attempts.
pub async fn verify(
    context: &Context,
    canonical_email: &str,
    source: &str,
    password: SecretString,
) -> Result<Credentials, Error> {
    let email_key = throttle_key("email", canonical_email);
    let credentials = count_attempt(context, canonical_email, &email_key, source).await?;
    let hash = match &credentials {
        Some(credentials) => credentials.password_hash.clone(),
        // An unknown email must take as long as a wrong password.
        None => hash_of_nobody(context).await?,
    };
    let is_right = context.verify_password(password, hash).await?;
    let credentials = credentials
        .filter(|_| is_right)
        .ok_or(Error::CredentialsInvalid)?;
    let mut tx = context.begin_platform().await?;
    db::login_throttle::forget(&mut tx, &email_key).await?;
    tx.commit().await?;
    Ok(credentials)
}

/// Counts an attempt before it is made, so that many at once are slowed too.
async fn count_attempt(
    context: &Context,
    canonical_email: &str,
    email_key: &[u8],
    source: &str,
) -> Result<Option<Credentials>, Error> {
    let mut tx = context.begin_platform().await?;
    let mut allowed = db::login_throttle::attempt(&mut tx, email_key, PER_EMAIL).await?;
    if allowed.is_ok() && !source.is_empty() {
        let source_key = throttle_key("source", source);
        allowed = db::login_throttle::attempt(&mut tx, &source_key, PER_SOURCE).await?;
    }
    let credentials = db::person::get_credentials(&mut tx, canonical_email).await?;
    tx.commit().await?;
    match allowed {
        Ok(()) => Ok(credentials),
        Err(seconds) => Err(Error::TooManyAttempts {
            retry_after: Duration::from_secs_f64(seconds.ceil()),
        }),
    }
}

fn throttle_key(what: &str, value: &str) -> Vec<u8> {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(what.as_bytes());
    context.update(b"\0");
    context.update(value.as_bytes());
    context.finish().as_ref().to_vec()
}

async fn hash_of_nobody(context: &Context) -> Result<String, Error> {
    static HASH: OnceLock<String> = OnceLock::new();
    if let Some(hash) = HASH.get() {
        return Ok(hash.clone());
    }
    let nobody = SecretString::from(Uuid::now_v7().to_string());
    let hash = context.hash_password(nobody).await?;
    Ok(HASH.get_or_init(|| hash).clone())
}
