//! Invitations: sending, listing, revoking.

use secrecy::ExposeSecret as _;
use sqlx::PgConnection;
use usher_proto::event::v1::{
    InvitationKind as EventKind, InvitationRequested, MailClass, OrganizationFace, SealedToken,
};
use usher_runtime::{
    audit::AuditEntry,
    change::Change,
    error::CommonError,
    fields::InvalidFields,
    page::{Page, Rows},
    seal::{self, TokenUse},
    timestamp,
};
use uuid::Uuid;

use super::organizations;
use crate::{
    context::{Context, Rules},
    db::{
        self,
        account::Account,
        invitation::{End, Ended, Invitation, NewInvitation},
    },
    domain::{
        audit::AuditAction,
        email::Email,
        name::PersonName,
        organization::{Organization, OrganizationProfile},
        profile::Profile,
        state::{AccountState, InvitationKind, InvitationState},
        token::{self, TokenHash},
    },
    error::Error,
    events,
};

/// What staff add to an invitation. `None` keeps what the newest invitation of the account has.
#[derive(Debug, Clone, Default)]
pub struct Extras {
    /// Form to fill in; empty means none.
    pub form_id: Option<String>,
    /// Where the link returns to; empty means the portal's start page.
    pub return_url: Option<String>,
}

impl Extras {
    /// The form and the return URL of an invitation that follows `newest`. A return URL that is kept is left out
    /// when its origin is not allowed any more: staff who send again do not know of it.
    fn resolve(
        &self,
        rules: &Rules,
        profile: &OrganizationProfile,
        newest: Option<&Invitation>,
    ) -> Result<(String, String), Error> {
        let check = |url: &str| match url {
            "" => Ok(String::new()),
            url => {
                rules
                    .links
                    .return_url(url, &profile.portal_url, &profile.allowed_return_origins)
            }
        };
        let form_id = match (&self.form_id, newest) {
            (Some(form_id), _) => form_id.clone(),
            (None, Some(newest)) => newest.form_id.clone(),
            (None, None) => String::new(),
        };
        let return_url = match (&self.return_url, newest) {
            (Some(url), _) => {
                check(url).map_err(|error| Error::from(InvalidFields::one("return_url", error)))?
            }
            (None, Some(newest)) => check(&newest.return_url).unwrap_or_default(),
            (None, None) => String::new(),
        };
        Ok((form_id, return_url))
    }
}

/// Whom an invitation goes to.
#[derive(Debug)]
pub struct Addressee<'a> {
    /// The account, locked or just created.
    pub account_id: Uuid,
    /// Name of the client.
    pub name: &'a PersonName,
    /// Where the email goes.
    pub email: &'a Email,
    /// Language of the account; empty means the organization's.
    pub locale: &'a str,
    /// The newest invitation of the account.
    pub newest: Option<&'a Invitation>,
}

impl<'a> Addressee<'a> {
    /// The client of an account; `None` if it has no email.
    #[must_use]
    pub fn new(
        account_id: Uuid,
        profile: &'a Profile,
        newest: Option<&'a Invitation>,
    ) -> Option<Self> {
        Some(Self {
            account_id,
            name: &profile.name,
            email: profile.email.as_ref()?,
            locale: &profile.locale,
            newest,
        })
    }
}

/// What became of a request to invite.
#[derive(Debug)]
pub struct Sent {
    /// The invitation whose email goes.
    pub invitation: Invitation,
    /// Its email waited already: no other was asked for.
    pub already_waiting: bool,
}

/// Invites the client of one account, for the first time or again. While an email of the account waits, there is no
/// further one. Older links work until the new email has left.
///
/// # Errors
/// If there is no such account, or it has no email, is active or closed.
pub async fn send(
    context: &Context,
    change: &mut Change,
    account_id: Uuid,
    extras: &Extras,
) -> Result<Sent, Error> {
    let organization_id = change.organization_id;
    let organization = organizations::read(change, organization_id).await?;
    let account = db::account::lock(change, organization_id, account_id)
        .await?
        .ok_or(Error::AccountNotFound(account_id))?;
    let addressee = invitable(&account)?;
    if let Some(waiting) = addressee.newest.filter(|newest| newest.state.is_waiting()) {
        let profile = &organization.profile;
        return Ok(Sent {
            invitation: keep_waiting(context, change, profile, waiting, extras).await?,
            already_waiting: true,
        });
    }
    // The Person may have signed up elsewhere since the account was created.
    let kind = if db::person::exists(change, addressee.email.canonical()).await? {
        InvitationKind::ShareRequest
    } else {
        InvitationKind::Activation
    };
    let invitation_id = create(context, change, &organization, &addressee, kind, extras).await?;
    Ok(Sent {
        invitation: read(change, organization_id, invitation_id).await?,
        already_waiting: false,
    })
}

/// Answers the invitation whose email waits, with the form and the return URL that were asked for now: the portal
/// reads them when the link is used.
async fn keep_waiting(
    context: &Context,
    change: &mut Change,
    profile: &OrganizationProfile,
    waiting: &Invitation,
    extras: &Extras,
) -> Result<Invitation, Error> {
    let (form_id, return_url) = extras.resolve(&context.rules, profile, Some(waiting))?;
    let changed_fields: Vec<_> = [
        ("form_id", form_id != waiting.form_id),
        ("return_url", return_url != waiting.return_url),
    ]
    .into_iter()
    .filter_map(|(field, is_changed)| is_changed.then_some(field))
    .collect();
    if changed_fields.is_empty() {
        change.mark_unchanged();
        return Ok(waiting.clone());
    }
    let (organization_id, invitation_id) = (waiting.organization_id, waiting.invitation_id);
    db::invitation::set_extras(
        change,
        organization_id,
        invitation_id,
        &form_id,
        &return_url,
    )
    .await?;
    change.audit(
        AuditEntry::of_resource(AuditAction::InvitationUpdated, waiting.account_id)
            .detail("invitation_id", invitation_id.to_string())
            .detail("changed_fields", changed_fields.join(",")),
    );
    read(change, organization_id, invitation_id).await
}

fn invitable(account: &Account) -> Result<Addressee<'_>, Error> {
    match account.state {
        AccountState::Closed => Err(Error::AccountClosed(account.account_id)),
        AccountState::Active => Err(Error::AccountAlreadyActive(account.account_id)),
        AccountState::Managed
        | AccountState::NotInvited
        | AccountState::Invited
        | AccountState::ShareRequested
        | AccountState::ShareDeclined => Addressee::new(
            account.account_id,
            &account.profile,
            account.last_invitation.as_ref(),
        )
        .ok_or(Error::AccountHasNoEmail(account.account_id)),
    }
}

/// Creates an invitation with its token, and the event that sends its email.
///
/// # Errors
/// If the portal is not trusted with tokens, or the return URL is on no allowed origin.
pub async fn create(
    context: &Context,
    change: &mut Change,
    organization: &Organization,
    addressee: &Addressee<'_>,
    kind: InvitationKind,
    extras: &Extras,
) -> Result<Uuid, Error> {
    let rules = &context.rules;
    let profile = &organization.profile;
    // The operator's list may have become shorter since the organization chose its portal.
    if rules.links.portal_url(&profile.portal_url).is_err() {
        return Err(Error::PortalNotTrusted);
    }
    let (form_id, return_url) = extras.resolve(rules, profile, addressee.newest)?;
    let locale = if addressee.locale.is_empty() {
        &profile.default_locale
    } else {
        addressee.locale
    };
    let invitation_id = Uuid::now_v7();
    let (token, TokenHash(token_hash)) =
        token::generate().map_err(|_| CommonError::Internal("no randomness".to_owned()))?;
    let requested_by = change.requested_by.clone();
    let new = NewInvitation {
        invitation_id,
        account_id: addressee.account_id,
        kind,
        recipient: addressee.email.address(),
        recipient_canonical: addressee.email.canonical(),
        locale,
        requested_by: &requested_by,
        form_id: &form_id,
        return_url: &return_url,
        lifetime_seconds: profile.invitation_lifetime_seconds,
        token_hash: &token_hash,
    };
    let times = db::invitation::create(change, organization.organization_id, &new).await?;
    let mut payload = InvitationRequested {
        invitation_id: invitation_id.to_string(),
        account_id: addressee.account_id.to_string(),
        kind: event_kind(kind).into(),
        mail_class: MailClass::Interactive.into(),
        send_number: 1,
        recipient: addressee.email.address().to_owned(),
        given_name: addressee.name.given.clone(),
        family_name: addressee.name.family.clone(),
        locale: locale.to_owned(),
        organization: Some(face(profile)),
        expire_time: Some(timestamp::encode(times.expire_time)),
        sealed_token: None,
        form_id,
        return_url,
    };
    let organization_id = organization.organization_id.to_string();
    let sealed = seal::seal(
        &context.notify_key,
        token.expose_secret(),
        TokenUse::of(&organization_id, &payload),
    )
    .map_err(|error| CommonError::Internal(error.to_string()))?;
    payload.sealed_token = Some(SealedToken {
        encapsulated_key: sealed.encapsulated_key,
        ciphertext: sealed.ciphertext,
    });
    change.emit(events::invitation_requested(
        organization.organization_id,
        payload,
        times.create_time,
    ));
    change.audit(
        AuditEntry::of_resource(AuditAction::InvitationSent, addressee.account_id)
            .detail("invitation_id", invitation_id.to_string())
            .detail("kind", kind.as_str()),
    );
    Ok(invitation_id)
}

fn event_kind(kind: InvitationKind) -> EventKind {
    match kind {
        InvitationKind::Activation => EventKind::Activation,
        InvitationKind::ShareRequest => EventKind::ShareRequest,
    }
}

fn face(profile: &OrganizationProfile) -> OrganizationFace {
    OrganizationFace {
        display_name: profile.display_name.clone(),
        portal_url: profile.portal_url.clone(),
        sender_name: profile.sender_name.clone(),
        reply_to: profile.reply_to.clone(),
        logo_url: profile.logo_url.clone(),
        color: profile.color.clone(),
    }
}

/// Ends all open invitations of an account, which is locked, and stops their emails.
///
/// # Errors
/// If the database fails.
pub async fn end(change: &mut Change, account_id: Uuid, how: End) -> Result<Vec<Ended>, Error> {
    let organization_id = change.organization_id;
    let ended = db::invitation::end(change, organization_id, account_id, how).await?;
    for event in ended.iter().filter_map(events::email_to_stop) {
        change.emit(event);
    }
    Ok(ended)
}

/// Reads an invitation.
///
/// # Errors
/// If there is none in this organization.
pub async fn read(
    connection: &mut PgConnection,
    organization_id: Uuid,
    invitation_id: Uuid,
) -> Result<Invitation, Error> {
    db::invitation::get(connection, organization_id, invitation_id)
        .await?
        .ok_or(Error::InvitationNotFound(invitation_id))
}

/// Lists invitations, newest first: of one account or of all, in any of `states`, or in all if there are
/// none.
///
/// # Errors
/// If there is no such organization.
pub async fn list(
    connection: &mut PgConnection,
    organization_id: Uuid,
    account_id: Option<Uuid>,
    states: &[InvitationState],
    page: &Page,
) -> Result<Rows<Invitation>, Error> {
    organizations::read(connection, organization_id).await?;
    let (after, limit) = (page.after, page.limit());
    let rows = match account_id {
        Some(account_id) => {
            db::invitation::list_of_account(
                connection,
                organization_id,
                account_id,
                states,
                after,
                limit,
            )
            .await?
        }
        None => db::invitation::list(connection, organization_id, states, after, limit).await?,
    };
    Ok(rows)
}

/// Withdraws an invitation and every other open one of its account: their links are dead at once, an email not
/// sent yet is not sent. One that was withdrawn before stays as it is.
///
/// # Errors
/// If there is none in this organization, or it ended otherwise before.
pub async fn revoke(change: &mut Change, invitation_id: Uuid) -> Result<Invitation, Error> {
    let organization_id = change.organization_id;
    let account_id = read(change, organization_id, invitation_id)
        .await?
        .account_id;
    // Whoever activates or invites at this moment holds this lock.
    db::account::lock(change, organization_id, account_id).await?;
    let invitation = read(change, organization_id, invitation_id).await?;
    match invitation.state {
        InvitationState::Revoked => {
            change.mark_unchanged();
            return Ok(invitation);
        }
        state if state.has_ended() => {
            return Err(Error::InvitationEnded {
                invitation_id,
                state,
            });
        }
        _ => {}
    }
    let others: Vec<_> = end(change, account_id, End::Revoked)
        .await?
        .iter()
        .filter(|ended| ended.invitation_id != invitation_id)
        .map(|ended| ended.invitation_id.to_string())
        .collect();
    let mut entry = AuditEntry::of_resource(AuditAction::InvitationRevoked, account_id)
        .detail("invitation_id", invitation_id.to_string());
    if !others.is_empty() {
        entry = entry.detail("other_invitation_ids", others.join(","));
    }
    change.audit(entry);
    read(change, organization_id, invitation_id).await
}
