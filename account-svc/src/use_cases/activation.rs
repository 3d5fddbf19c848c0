//! Activation: a client follows a link, chooses a password and takes the account over.

use secrecy::SecretString;
use sqlx::PgConnection;
use usher_proto::account::v1::ActivateAccountResponse;
use usher_runtime::{
    audit::AuditEntry,
    call::Call,
    change::{self, Change, Changed},
    database::Scope,
    error::CommonError,
    hidden_debug,
};
use uuid::Uuid;

use super::{authentication, invitations};
use crate::{
    context::{Context, Rules},
    db::{self, invitation::End, token::Token},
    domain::{
        audit::AuditAction,
        state::{InvitationKind, TokenStatus},
        token::TokenHash,
    },
    error::Error,
    events,
};

/// What a link is for, and whether it works.
#[derive(Debug)]
pub struct Inspection {
    /// The token with its organization and invitation.
    pub token: Token,
    /// Where to send the client afterwards; empty means the portal's start page.
    pub return_url: String,
    /// Whether the recipient has a login on the platform already.
    pub has_login: bool,
}

/// Says what a link is for, and consumes nothing.
///
/// # Errors
/// If there is no such token, or it belongs to an organization that the caller cannot reach.
pub async fn inspect(
    connection: &mut PgConnection,
    call: &Call,
    rules: &Rules,
    hash: TokenHash,
) -> Result<Inspection, Error> {
    let token = read_token(connection, call, hash).await?;
    let has_login = db::person::exists(connection, &token.recipient_canonical).await?;
    Ok(Inspection {
        return_url: return_url(rules, &token),
        token,
        has_login,
    })
}

/// A link with what its client types.
pub struct Activation {
    /// The token from the link.
    pub hash: TokenHash,
    /// The password: a new one, or that of the recipient's login.
    pub password: SecretString,
    /// Where the client sits.
    pub source: String,
}

hidden_debug!(Activation);

/// Takes an account over. Of any number of callers with the same token, one succeeds.
///
/// # Errors
/// If the token is unknown or dead, the password breaks a rule, or it is not that of the recipient's login.
pub async fn activate(
    context: &Context,
    call: &Call,
    activation: Activation,
) -> Result<ActivateAccountResponse, Error> {
    let Activation {
        hash,
        password,
        source,
    } = activation;
    let Prepared {
        token,
        person_id,
        response,
    } = prepare(context, call, hash).await?;
    let organization_id = token.organization_id;
    let recipient = token.recipient_canonical.clone();
    if let Some(response) = response {
        // Only to whoever knows the password: the request id and the token alone prove nothing.
        authentication::verify(context, organization_id, &recipient, &source, password).await?;
        return Ok(response);
    }
    let person = if person_id.is_some() {
        // Whoever runs the portal sees the token; it must not open the Person's other accounts.
        let person_id = authentication::verify(
            context,
            organization_id,
            &recipient,
            &source,
            password.clone(),
        )
        .await?;
        PersonToLink::Existing(person_id)
    } else {
        let personal = vec![
            token.given_name.clone(),
            token.family_name.clone(),
            token.recipient.clone(),
            token.organization_name.clone(),
        ];
        authentication::limit_hashing(context, hash).await?;
        let hashed = context
            .passwords
            .hash_new(organization_id, password.clone(), personal)
            .await?;
        PersonToLink::New(hashed)
    };
    let changed = context
        .store
        .change_in(call, Scope::Platform, organization_id, async |change| {
            link(context, change, hash, &token, person).await
        })
        .await?;
    if let Changed::Repeated(_) = &changed {
        // The first call was carried out since the stored response was looked for.
        authentication::verify(context, organization_id, &recipient, &source, password).await?;
    }
    Ok(changed.into_response())
}

/// What is known of a token before its password is looked at.
struct Prepared {
    token: Token,
    /// The Person who has the recipient's email already.
    person_id: Option<Uuid>,
    /// The response of an earlier call with this request id.
    response: Option<ActivateAccountResponse>,
}

/// Reads all that is needed before hashing, in a transaction that ends before: hashing takes long.
async fn prepare(context: &Context, call: &Call, hash: TokenHash) -> Result<Prepared, Error> {
    let read = context.store.read_in(Scope::Platform, async |tx| {
        let token = read_token(tx, call, hash).await?;
        if token.kind != InvitationKind::Activation {
            return Err(Error::TokenUnknown);
        }
        if let Some(key) = &call.request_key
            && let Some(response) = change::stored_response(tx, token.organization_id, key).await?
        {
            return Ok(Prepared {
                token,
                person_id: None,
                response: Some(response),
            });
        }
        check_usable(token.status)?;
        let credentials = db::person::get_credentials(tx, &token.recipient_canonical).await?;
        if credentials.is_some() {
            // The Person may come from another caller, who used this very token since it was read.
            check_usable(read_token(tx, call, hash).await?.status)?;
        }
        Ok(Prepared {
            token,
            person_id: credentials.map(|credentials| credentials.person_id),
            response: None,
        })
    });
    read.await
}

/// A token within the caller's reach: another organization's looks like none.
async fn read_token(
    connection: &mut PgConnection,
    call: &Call,
    hash: TokenHash,
) -> Result<Token, Error> {
    db::token::get(connection, hash)
        .await?
        .filter(|token| call.reach.covers(token.organization_id))
        .ok_or(Error::TokenUnknown)
}

enum PersonToLink {
    /// Proved by their password.
    Existing(Uuid),
    /// To be created with this password hash.
    New(String),
}

/// All or nothing: token used, Person created, account linked, invitation accepted.
async fn link(
    context: &Context,
    change: &mut Change,
    hash: TokenHash,
    token: &Token,
    person: PersonToLink,
) -> Result<ActivateAccountResponse, Error> {
    let organization_id = token.organization_id;
    let account_id = token.account_id;
    // The order of locks is that of every other change: account, then invitation and token.
    db::account::lock(change, organization_id, account_id).await?;
    let Some(consumed) = db::token::consume(change, hash).await? else {
        return Err(why_unusable(change, hash).await?);
    };
    let person_id = match person {
        PersonToLink::Existing(person_id) => person_id,
        PersonToLink::New(password_hash) => {
            let canonical = &token.recipient_canonical;
            db::person::create(change, Uuid::now_v7(), canonical, &password_hash)
                .await?
                // The same email was proved through another organization a moment ago.
                .ok_or(CommonError::ConcurrentUpdate)?
        }
    };
    if !db::account::activate(change, organization_id, account_id, person_id).await? {
        return Err(Error::AccountAlreadyActive(account_id));
    }
    invitations::end(change, account_id, End::Accepted(token.invitation_id)).await?;
    change.emit(events::account_activated(
        organization_id,
        account_id,
        person_id,
        token.invitation_id,
        consumed.used_time,
    ));
    change.act_as_person(person_id);
    change.audit(
        AuditEntry::of_resource(AuditAction::AccountActivated, account_id)
            .detail("invitation_id", token.invitation_id.to_string())
            .detail("called_by", &change.requested_by),
    );
    Ok(ActivateAccountResponse {
        organization_id: organization_id.to_string(),
        account_id: account_id.to_string(),
        person_id: person_id.to_string(),
        return_url: return_url(&context.rules, token),
    })
}

/// The return URL of an invitation, if the organization still allows its origin.
fn return_url(rules: &Rules, token: &Token) -> String {
    rules
        .links
        .return_url(
            &token.return_url,
            &token.portal_url,
            &token.allowed_return_origins,
        )
        .unwrap_or_default()
}

fn check_usable(status: TokenStatus) -> Result<(), Error> {
    match status {
        TokenStatus::Valid => Ok(()),
        dead => Err(Error::TokenDead(dead)),
    }
}

/// Why a token that could be used a moment ago could not be consumed.
async fn why_unusable(connection: &mut PgConnection, hash: TokenHash) -> Result<Error, Error> {
    let token = db::token::get(connection, hash)
        .await?
        .ok_or(Error::TokenUnknown)?;
    Ok(check_usable(token.status)
        .err()
        .unwrap_or(CommonError::ConcurrentUpdate.into()))
}
