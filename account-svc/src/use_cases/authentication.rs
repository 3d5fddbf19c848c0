//! Login: email and password, slowed for each source, each email, and each pair of them.

use std::time::Duration;

use aws_lc_rs::digest;
use data_encoding::HEXLOWER;
use secrecy::SecretString;
use sqlx::PgConnection;
use time::OffsetDateTime;
use tokio::{sync::oneshot, time::sleep};
use usher_runtime::{
    backoff::Backoff,
    database::{self, Place, Scope, Tx},
    error::CommonError,
};
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

/// After how many further tries an attempt stays counted that could not be taken back.
const GIVE_BACK_TRIES: usize = 6;

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
    let attempt = Attempt {
        context: context.clone(),
        organization_id,
        canonical_email: canonical_email.to_owned(),
        keys: Keys::new(organization_id, canonical_email, source),
        password,
        is_login: true,
    };
    attempt.answer().await
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
    let attempt = Attempt {
        context: context.clone(),
        organization_id,
        canonical_email: canonical_email.to_owned(),
        keys: Keys::new(organization_id, canonical_email, source),
        password,
        is_login: false,
    };
    Ok(attempt.answer().await?.person_id)
}

/// An attempt to log in, or to prove one's password. Only wrong passwords count. All callers without a source share one.
struct Attempt {
    context: Context,
    organization_id: Uuid,
    canonical_email: String,
    keys: Keys,
    password: SecretString,
    /// Whether a right password is a login, which is recorded.
    is_login: bool,
}

impl Attempt {
    /// Makes the attempt in a task of its own: it was counted before its password is checked, and has to be taken back
    /// also when the time of the call ends meanwhile.
    async fn answer(self) -> Result<Login, Error> {
        let workers = self.context.workers.clone();
        let (caller, answer) = oneshot::channel();
        workers.spawn_once(self.run(caller));
        let ended = || CommonError::Internal("an attempt to log in has ended early".to_owned());
        answer.await.map_err(|_| ended())?
    }

    /// Answers `caller`, if that one still listens. An attempt whose password is not known to be wrong is taken back.
    async fn run(self, mut caller: oneshot::Sender<Result<Login, Error>>) {
        let (counted, credentials) = match self.count().await {
            Ok(allowed) => allowed,
            Err(error) => {
                let _ = caller.send(Err(error));
                return;
            }
        };
        let checked = tokio::select! {
            // A password that is known to be wrong counts, whether or not somebody hears of it.
            biased;
            checked = self.check(credentials) => checked,
            // Nobody hears this answer.
            () = caller.closed() => Err(Error::Overloaded),
        };
        let answer = match checked {
            Ok(Some(person_id)) => self.succeed(&counted, person_id).await,
            Ok(None) => {
                let _ = caller.send(Err(Error::CredentialsInvalid));
                return;
            }
            Err(error) => Err(error),
        };
        let is_settled = answer.is_ok() || self.give_back(&counted).await.is_ok();
        let _ = caller.send(answer);
        if !is_settled {
            self.give_back_later(&counted).await;
        }
    }

    /// Of all organizations, on one of the connections that this one's calls may use.
    async fn begin(&self) -> Result<(Tx, Option<Place>), CommonError> {
        let store = &self.context.store;
        store.begin(Scope::Platform, self.organization_id).await
    }

    /// Counts the attempt before it is made, so that many at once are slowed too. Answers what it was counted under,
    /// and what to check the password against.
    async fn count(&self) -> Result<(Vec<Counted<'_>>, Option<Credentials>), Error> {
        let (mut tx, _place) = self.begin().await?;
        organizations::read(&mut tx, self.organization_id).await?;
        let counted = match count_under(&mut tx, &self.keys).await? {
            Ok(counted) => counted,
            Err(seconds) => {
                // No password is checked, so nothing counts, also under the limits that let it through before.
                tx.rollback().await?;
                return Err(too_many_attempts(seconds));
            }
        };
        let credentials = db::person::get_credentials(&mut tx, &self.canonical_email).await?;
        tx.commit().await?;
        Ok((counted, credentials))
    }

    /// Checks the password, outside of any transaction, since hashing takes long; answers the Person if it is right.
    async fn check(&self, credentials: Option<Credentials>) -> Result<Option<Uuid>, Error> {
        let (person_id, hash) = credentials
            .map(|credentials| (credentials.person_id, credentials.password_hash))
            .unzip();
        let passwords = &self.context.passwords;
        let is_right = passwords
            .verify(self.organization_id, self.password.clone(), hash)
            .await?;
        Ok(person_id.filter(|_| is_right))
    }

    /// The password was right: records the login, takes back what was counted, forgets wrong passwords from the same
    /// source, and remembers the source.
    async fn succeed(&self, counted: &[Counted<'_>], person_id: Uuid) -> Result<Login, Error> {
        let (mut tx, _place) = self.begin().await?;
        // The account first: while it waits for that, it keeps no row of the limits from others.
        let login = if self.is_login {
            db::account::record_login(&mut tx, self.organization_id, person_id).await?
        } else {
            None
        };
        let pair = &self.keys.email_and_source;
        db::login_throttle::give_back(&mut tx, counted).await?;
        db::login_throttle::forget(&mut tx, pair).await?;
        if self.keys.source.is_some() {
            db::login_throttle::remember_source(&mut tx, pair).await?;
        }
        tx.commit().await?;
        Ok(Login {
            person_id,
            account_id: login.as_ref().map(|login| login.account_id),
            previous_login_time: login.and_then(|login| login.previous_login_time),
        })
    }

    /// Takes back what was counted: whoever repeats the call, as told, must not use up attempts.
    async fn give_back(&self, counted: &[Counted<'_>]) -> Result<(), CommonError> {
        let (mut tx, _place) = self.begin().await?;
        db::login_throttle::give_back(&mut tx, counted).await?;
        Ok(tx.commit().await?)
    }

    /// Tries that again for a minute or so: the database was away, or busy.
    async fn give_back_later(&self, counted: &[Counted<'_>]) {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        for _ in 0..GIVE_BACK_TRIES {
            sleep(backoff.next_delay()).await;
            if self.give_back(counted).await.is_ok() {
                return;
            }
        }
        tracing::warn!("an attempt to log in whose password was not wrong stays counted");
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

/// Counts an attempt under all its keys, and answers them; `Err` holds the seconds to wait. The narrowest limit comes
/// first: calls from a source that is blocked do not keep the rows of the email, which all sources share, from others.
async fn count_under<'a>(
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
