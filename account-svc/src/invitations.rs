//! Invitations: sending, listing, revoking.

use secrecy::ExposeSecret as _;
use serde_json::json;
use sqlx::PgConnection;
use usher_proto::event::v1::{
    InvitationKind, InvitationRequested, MailClass, OrganizationFace, SealedToken,
};
use usher_runtime::{
    fields::{FieldViolation, InvalidFields},
    outbox::{self, OutboxEvent},
    page::Rows,
    seal,
};
use uuid::Uuid;

use crate::{
    context::Context,
    db::{
        self,
        account::Account,
        invitation::{End, Invitation, NewInvitation},
    },
    domain::{
        email::Email,
        organization::Organization,
        token::{self, TokenHash},
    },
    error::Error,
    events,
    idempotency::{self, RequestKey},
};

/// What staff add to an invitation.
#[derive(Debug, Clone, Default)]
pub struct Extras {
    /// Form to fill in; empty means none.
    pub form_id: String,
    /// Where the link returns to; empty means the portal's start page.
    pub return_url: String,
}

/// What an invitation asks of its recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Take the account over.
    Activation,
    /// Share the information of an existing Person.
    ShareRequest,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Activation => "ACTIVATION",
            Self::ShareRequest => "SHARE_REQUEST",
        }
    }

    fn event_kind(self) -> InvitationKind {
        match self {
            Self::Activation => InvitationKind::Activation,
            Self::ShareRequest => InvitationKind::ShareRequest,
        }
    }
}

/// Whom to invite, on whose behalf.
#[derive(Debug)]
pub struct Request<'a> {
    /// The organization that invites.
    pub organization: &'a Organization,
    /// The account, locked or just created.
    pub account_id: Uuid,
    /// Given name of the recipient.
    pub given_name: &'a str,
    /// Family name of the recipient.
    pub family_name: &'a str,
    /// Where the email goes.
    pub email: &'a Email,
    /// Language of the account; empty means the organization's.
    pub locale: &'a str,
    /// What is asked.
    pub kind: Kind,
    /// What staff add.
    pub extras: &'a Extras,
    /// Who asks.
    pub requested_by: &'a str,
}

/// Invites the client of one account, for the first time or again.
///
/// # Errors
/// If there is no such account, or it has no email, is active or closed.
pub async fn send(
    context: &Context,
    organization_id: Uuid,
    account_id: Uuid,
    extras: &Extras,
    requested_by: &str,
    key: Option<&RequestKey>,
) -> Result<Invitation, Error> {
    let mut tx = context.begin(organization_id).await?;
    if let Some(answer) = idempotency::replay(&mut tx, organization_id, key).await? {
        return Ok(answer);
    }
    let organization = db::organization::get(&mut tx, organization_id)
        .await?
        .ok_or(Error::OrganizationNotFound(organization_id))?;
    let account = db::account::lock(&mut tx, organization_id, account_id)
        .await?
        .ok_or(Error::AccountNotFound(account_id))?;
    let email = invitable(&account)?;
    // The Person may have signed up elsewhere since the account was created.
    let kind = if db::person::exists(&mut tx, email.canonical()).await? {
        Kind::ShareRequest
    } else {
        Kind::Activation
    };
    let request = Request {
        organization: &organization,
        account_id,
        given_name: &account.given_name,
        family_name: &account.family_name,
        email: &email,
        locale: &account.locale,
        kind,
        extras,
        requested_by,
    };
    let mut events = end(&mut tx, organization_id, account_id, End::Superseded).await?;
    let (invitation_id, event) = create(context, &mut tx, &request).await?;
    events.push(event);
    outbox::add(&mut tx, events).await?;
    db::audit::add(
        &mut tx,
        organization_id,
        Some(account_id),
        requested_by,
        "invitation.send",
        json!({ "invitation_id": invitation_id, "kind": kind.as_str() }),
    )
    .await?;
    let invitation = read(&mut tx, organization_id, invitation_id).await?;
    idempotency::keep(&mut tx, organization_id, key, &invitation).await?;
    tx.commit().await?;
    context.wake.notify();
    Ok(invitation)
}

fn invitable(account: &Account) -> Result<Email, Error> {
    match account.state.as_str() {
        "CLOSED" => Err(Error::AccountClosed(account.account_id)),
        "ACTIVE" => Err(Error::AccountAlreadyActive(account.account_id)),
        _ => account
            .profile()
            .email
            .ok_or(Error::AccountHasNoEmail(account.account_id)),
    }
}

/// Creates an invitation in the caller's transaction, and the event that sends its email.
///
/// # Errors
/// If the return URL is on no allowed origin.
pub async fn create(
    context: &Context,
    connection: &mut PgConnection,
    request: &Request<'_>,
) -> Result<(Uuid, OutboxEvent), Error> {
    let organization = request.organization;
    let return_url = return_url(context, organization, &request.extras.return_url)?;
    let locale = if request.locale.is_empty() {
        &organization.profile.default_locale
    } else {
        request.locale
    };
    let invitation_id = Uuid::now_v7();
    let (token, TokenHash(token_hash)) =
        token::generate().map_err(|_| Error::Internal("no randomness".to_owned()))?;
    let times = db::invitation::create(
        connection,
        organization.organization_id,
        &NewInvitation {
            invitation_id,
            account_id: request.account_id,
            kind: request.kind.as_str(),
            recipient: request.email.address(),
            recipient_canonical: request.email.canonical(),
            locale,
            requested_by: request.requested_by,
            form_id: &request.extras.form_id,
            return_url: &return_url,
            lifetime_seconds: organization.profile.invitation_lifetime_seconds,
            token_hash: &token_hash,
        },
    )
    .await?;
    let sealed = seal::seal(
        &context.notify_key,
        token.expose_secret(),
        invitation_id.to_string().as_bytes(),
    )
    .map_err(|error| Error::Internal(error.to_string()))?;
    let payload = InvitationRequested {
        invitation_id: invitation_id.to_string(),
        account_id: request.account_id.to_string(),
        kind: request.kind.event_kind().into(),
        mail_class: MailClass::Interactive.into(),
        send_number: 1,
        recipient: request.email.address().to_owned(),
        given_name: request.given_name.to_owned(),
        family_name: request.family_name.to_owned(),
        locale: locale.to_owned(),
        organization: Some(face(organization)),
        expire_time: Some(events::timestamp(times.expire_time)),
        sealed_token: Some(SealedToken {
            encapsulated_key: sealed.encapsulated_key,
            ciphertext: sealed.ciphertext,
        }),
        form_id: request.extras.form_id.clone(),
        return_url,
    };
    let event =
        events::invitation_requested(organization.organization_id, payload, times.create_time);
    Ok((invitation_id, event))
}

fn return_url(
    context: &Context,
    organization: &Organization,
    return_url: &str,
) -> Result<String, Error> {
    if return_url.is_empty() {
        return Ok(String::new());
    }
    context
        .rules
        .links
        .return_url(
            return_url,
            &organization.profile.portal_url,
            &organization.profile.allowed_return_origins,
        )
        .map_err(|error| InvalidFields(vec![FieldViolation::new("return_url", error)]).into())
}

fn face(organization: &Organization) -> OrganizationFace {
    let profile = &organization.profile;
    OrganizationFace {
        display_name: profile.display_name.clone(),
        portal_url: profile.portal_url.clone(),
        sender_name: profile.sender_name.clone(),
        reply_to: profile.reply_to.clone(),
        logo_url: profile.logo_url.clone(),
        color: profile.color.clone(),
    }
}

/// Ends the live invitation of an account, if there is one, and makes the event that stops its email.
///
/// # Errors
/// If the database fails.
pub async fn end(
    connection: &mut PgConnection,
    organization_id: Uuid,
    account_id: Uuid,
    how: End,
) -> Result<Vec<OutboxEvent>, Error> {
    let ended = db::invitation::end(connection, organization_id, account_id, how).await?;
    Ok(ended
        .map(|ended| {
            events::invitation_revoked(
                organization_id,
                ended.invitation_id,
                ended.send_count,
                ended.end_time,
            )
        })
        .into_iter()
        .collect())
}

/// Reads an invitation.
///
/// # Errors
/// If there is none in this organization.
pub async fn get(
    context: &Context,
    organization_id: Uuid,
    invitation_id: Uuid,
) -> Result<Invitation, Error> {
    let mut tx = context.begin(organization_id).await?;
    read(&mut tx, organization_id, invitation_id).await
}

async fn read(
    connection: &mut PgConnection,
    organization_id: Uuid,
    invitation_id: Uuid,
) -> Result<Invitation, Error> {
    db::invitation::get(connection, organization_id, invitation_id)
        .await?
        .ok_or(Error::InvitationNotFound(invitation_id))
}

/// Lists invitations, newest first.
///
/// # Errors
/// If there is no such organization.
pub async fn list(
    context: &Context,
    organization_id: Uuid,
    account_id: Option<Uuid>,
    states: &[String],
    after: Option<Uuid>,
    limit: i64,
) -> Result<Rows<Invitation>, Error> {
    let mut tx = context.begin(organization_id).await?;
    db::organization::get(&mut tx, organization_id)
        .await?
        .ok_or(Error::OrganizationNotFound(organization_id))?;
    Ok(match account_id {
        Some(account_id) => {
            db::invitation::list_of_account(
                &mut tx,
                organization_id,
                account_id,
                states,
                after,
                limit,
            )
            .await?
        }
        None => db::invitation::list(&mut tx, organization_id, states, after, limit).await?,
    })
}

/// Withdraws an invitation: the link is dead at once, an email not sent yet is not sent.
///
/// # Errors
/// If there is none in this organization, or it ended otherwise before.
pub async fn revoke(
    context: &Context,
    organization_id: Uuid,
    invitation_id: Uuid,
    actor: &str,
    key: Option<&RequestKey>,
) -> Result<Invitation, Error> {
    let mut tx = context.begin(organization_id).await?;
    if let Some(answer) = idempotency::replay(&mut tx, organization_id, key).await? {
        return Ok(answer);
    }
    let account_id = read(&mut tx, organization_id, invitation_id)
        .await?
        .account_id;
    // Whoever activates or invites at this moment holds this lock.
    db::account::lock(&mut tx, organization_id, account_id).await?;
    let invitation = read(&mut tx, organization_id, invitation_id).await?;
    match invitation.state.as_str() {
        "REVOKED" => return Ok(invitation),
        "ACCEPTED" | "DECLINED" | "EXPIRED" | "SUPERSEDED" => {
            return Err(Error::InvitationEnded {
                invitation_id,
                state: invitation.state,
            });
        }
        _ => {}
    }
    let events = end(&mut tx, organization_id, account_id, End::Revoked).await?;
    outbox::add(&mut tx, events).await?;
    db::audit::add(
        &mut tx,
        organization_id,
        Some(account_id),
        actor,
        "invitation.revoke",
        json!({ "invitation_id": invitation_id }),
    )
    .await?;
    let invitation = read(&mut tx, organization_id, invitation_id).await?;
    idempotency::keep(&mut tx, organization_id, key, &invitation).await?;
    tx.commit().await?;
    context.wake.notify();
    Ok(invitation)
}
