//! Activation: a client follows a link, chooses a password and takes the account over.

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;
use usher_runtime::outbox;
use uuid::Uuid;

use crate::{
    authentication,
    context::Context,
    db::{
        self,
        invitation::End,
        token::{Consumed, Token},
    },
    domain::token::TokenHash,
    error::{DeadToken, Error},
    events,
    idempotency::{self, RequestKey},
};

/// What a link is for, and whether it works.
#[derive(Debug)]
pub struct Inspection {
    /// The token with its organization and invitation.
    pub token: Token,
    /// Whether the recipient has a login on the platform already.
    pub has_login: bool,
}

/// An account that was taken over.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Activation {
    /// The organization.
    pub organization_id: Uuid,
    /// The account.
    pub account_id: Uuid,
    /// The Person who took it over.
    pub person_id: Uuid,
    /// Where to send the client; empty means the portal's start page.
    pub return_url: String,
}

/// Says what a link is for, and consumes nothing.
///
/// # Errors
/// If there is no such token.
pub async fn inspect(context: &Context, hash: TokenHash) -> Result<Inspection, Error> {
    let mut tx = context.begin_platform().await?;
    let token = db::token::get(&mut tx, hash)
        .await?
        .ok_or(Error::TokenUnknown)?;
    let has_login = db::person::exists(&mut tx, &token.recipient_canonical).await?;
    Ok(Inspection { token, has_login })
}

/// Takes an account over. Of any number of callers with the same token, one succeeds.
///
/// # Errors
/// If the token is unknown or dead, or the password breaks a rule.
pub async fn activate(
    context: &Context,
    hash: TokenHash,
    password: SecretString,
    key: Option<&RequestKey>,
) -> Result<Activation, Error> {
    let mut tx = context.begin_platform().await?;
    let token = db::token::get(&mut tx, hash)
        .await?
        .filter(|token| token.kind == "ACTIVATION")
        .ok_or(Error::TokenUnknown)?;
    if let Some(answer) = idempotency::replay(&mut tx, token.organization_id, key).await? {
        return Ok(answer);
    }
    check_alive(&token)?;
    let credentials = db::person::get_credentials(&mut tx, &token.recipient_canonical).await?;
    if credentials.is_some() {
        // The Person may come from another caller, who used this very token since it was read.
        check_alive(
            &db::token::get(&mut tx, hash)
                .await?
                .ok_or(Error::TokenUnknown)?,
        )?;
    }
    // Ends the claim of the key too: hashing takes long, and no transaction should wait for it.
    tx.rollback().await?;

    let person = match credentials {
        Some(credentials) => {
            // Whoever runs the portal sees the token; it must not open the Person's other accounts.
            authentication::verify(context, &token.recipient_canonical, "", password).await?;
            PersonToLink::Existing(credentials.person_id)
        }
        None => PersonToLink::New(new_password(context, &token, password).await?),
    };
    link(context, hash, &token, person, key).await
}

enum PersonToLink {
    /// Proved by their password.
    Existing(Uuid),
    /// To be created with this password hash.
    New(String),
}

async fn new_password(
    context: &Context,
    token: &Token,
    password: SecretString,
) -> Result<String, Error> {
    let personal = [
        token.given_name.as_str(),
        &token.family_name,
        &token.recipient,
        &token.organization_name,
    ];
    context.rules.password.check(&password, &personal)?;
    context.hash_password(password).await
}

/// All or nothing: token used, Person created, account linked, invitation accepted.
async fn link(
    context: &Context,
    hash: TokenHash,
    token: &Token,
    person: PersonToLink,
    key: Option<&RequestKey>,
) -> Result<Activation, Error> {
    let organization_id = token.organization_id;
    let account_id = token.account_id;
    let mut tx = context.begin_platform().await?;
    if let Some(answer) = idempotency::replay(&mut tx, organization_id, key).await? {
        return Ok(answer);
    }
    // The order of locks is that of every other change: account, then invitation and token.
    db::account::lock(&mut tx, organization_id, account_id).await?;
    let Some(Consumed { used_time }) = db::token::consume(&mut tx, hash).await? else {
        return Err(why_dead(&mut tx, hash).await?);
    };
    let person_id = match person {
        PersonToLink::Existing(person_id) => person_id,
        PersonToLink::New(password_hash) => {
            let canonical = &token.recipient_canonical;
            db::person::create(&mut tx, Uuid::now_v7(), canonical, &password_hash)
                .await?
                // The same email was proved through another organization a moment ago.
                .ok_or(Error::ConcurrentUpdate)?
        }
    };
    if !db::account::activate(&mut tx, organization_id, account_id, person_id).await? {
        return Err(Error::AccountAlreadyActive(account_id));
    }
    db::invitation::end(&mut tx, organization_id, account_id, End::Accepted).await?;
    let event = events::account_activated(
        organization_id,
        account_id,
        person_id,
        token.invitation_id,
        used_time,
    );
    outbox::add(&mut tx, vec![event]).await?;
    db::audit::add(
        &mut tx,
        organization_id,
        Some(account_id),
        &format!("person:{person_id}"),
        "account.activate",
        json!({ "invitation_id": token.invitation_id }),
    )
    .await?;
    let activation = Activation {
        organization_id,
        account_id,
        person_id,
        return_url: token.return_url.clone(),
    };
    idempotency::keep(&mut tx, organization_id, key, &activation).await?;
    tx.commit().await?;
    context.wake.notify();
    Ok(activation)
}

fn check_alive(token: &Token) -> Result<(), Error> {
    let dead = match token.status.as_str() {
        "VALID" => return Ok(()),
        "USED" => DeadToken::Used,
        "REVOKED" => DeadToken::Revoked,
        "SUPERSEDED" => DeadToken::Superseded,
        _ => DeadToken::Expired,
    };
    Err(Error::TokenDead(dead))
}

/// Why a token that was alive a moment ago could not be consumed.
async fn why_dead(connection: &mut PgConnection, hash: TokenHash) -> Result<Error, Error> {
    let token = db::token::get(connection, hash)
        .await?
        .ok_or(Error::TokenUnknown)?;
    Ok(check_alive(&token).err().unwrap_or(Error::ConcurrentUpdate))
}
