//! What an invitation is made of, before and after its rows are written.

use secrecy::{ExposeSecret as _, SecretString};
use usher_proto::event::v1::{
    InvitationKind as EventKind, InvitationRequested, MailClass, OrganizationFace, SealedToken,
};
use usher_runtime::{
    audit::AuditEntry,
    change::Change,
    error::CommonError,
    fields::InvalidFields,
    seal::{self, TokenUse},
    timestamp,
};
use uuid::Uuid;

use crate::{
    context::{Context, Rules},
    db::invitation::{Invitation, NewInvitation, Times},
    domain::{
        audit::AuditAction,
        email::Email,
        name::PersonName,
        organization::{Organization, OrganizationProfile},
        profile::Profile,
        state::InvitationKind,
        token,
    },
    error::Error,
    events,
};

/// What staff add to an invitation. `None` keeps what the newest invitation of the account has.
#[derive(Debug, Clone, Default)]
pub struct InvitationOptions {
    /// Form to fill in; empty means none.
    pub form_id: Option<String>,
    /// Where the link returns to; empty means the portal's start page.
    pub return_url: Option<String>,
}

impl InvitationOptions {
    /// Checks what is given, for whoever cannot use it yet.
    ///
    /// # Errors
    /// If the return URL is on no allowed origin.
    pub fn check(&self, context: &Context, organization: &Organization) -> Result<(), Error> {
        self.resolve(&context.rules, &organization.profile, None)?;
        Ok(())
    }

    /// The form and the return URL of an invitation that follows `newest`. A return URL that is kept is left out
    /// when its origin is not allowed any more: staff who send again do not know of it.
    pub(super) fn resolve(
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

/// An invitation that is not written yet.
pub struct Draft<'a> {
    /// What is to be written.
    pub invitation: NewInvitation<'a>,
    token: SecretString,
    name: &'a PersonName,
    organization: &'a Organization,
}

impl<'a> Draft<'a> {
    /// Checks an invitation and makes its token.
    ///
    /// # Errors
    /// If the portal is not trusted with tokens, or the return URL is on no allowed origin.
    pub fn new(
        context: &Context,
        change: &Change,
        organization: &'a Organization,
        addressee: &Addressee<'a>,
        kind: InvitationKind,
        options: &InvitationOptions,
    ) -> Result<Self, Error> {
        let rules = &context.rules;
        let profile = &organization.profile;
        // The operator's list may have become shorter since the organization chose its portal.
        if rules.links.portal_url(&profile.portal_url).is_err() {
            return Err(Error::PortalNotTrusted);
        }
        let (form_id, return_url) = options.resolve(rules, profile, addressee.newest)?;
        let locale = if addressee.locale.is_empty() {
            &profile.default_locale
        } else {
            addressee.locale
        };
        let (token, token_hash) =
            token::generate().map_err(|_| CommonError::Internal("no randomness".to_owned()))?;
        Ok(Self {
            invitation: NewInvitation {
                invitation_id: Uuid::now_v7(),
                account_id: addressee.account_id,
                kind,
                recipient: addressee.email,
                locale,
                requested_by: change.requested_by.clone(),
                form_id,
                return_url,
                lifetime_seconds: profile.invitation_lifetime_seconds,
                token_hash,
            },
            token,
            name: addressee.name,
            organization,
        })
    }

    /// Asks for the email, once the invitation is written.
    ///
    /// # Errors
    /// If the token cannot be sealed.
    pub fn announce(
        self,
        context: &Context,
        change: &mut Change,
        times: Times,
    ) -> Result<Invitation, Error> {
        let new = self.invitation;
        let organization_id = self.organization.organization_id;
        let mut payload = InvitationRequested {
            invitation_id: new.invitation_id.to_string(),
            account_id: new.account_id.to_string(),
            kind: event_kind(new.kind).into(),
            mail_class: MailClass::Interactive.into(),
            send_number: 1,
            recipient: new.recipient.address().to_owned(),
            given_name: self.name.given.clone(),
            family_name: self.name.family.clone(),
            locale: new.locale.to_owned(),
            organization: Some(face(&self.organization.profile)),
            expire_time: Some(timestamp::encode(times.expire_time)),
            sealed_token: None,
            form_id: new.form_id.clone(),
            return_url: new.return_url.clone(),
        };
        let sealed = seal::seal(
            &context.notify_key,
            self.token.expose_secret(),
            TokenUse::of(&organization_id.to_string(), &payload),
        )
        .map_err(|error| CommonError::Internal(error.to_string()))?;
        payload.sealed_token = Some(SealedToken {
            encapsulated_key: sealed.encapsulated_key,
            ciphertext: sealed.ciphertext,
        });
        change.emit(events::invitation_requested(
            organization_id,
            payload,
            times.create_time,
        ));
        change.audit(
            AuditEntry::of_resource(AuditAction::InvitationSent, new.account_id)
                .detail("invitation_id", new.invitation_id.to_string())
                .detail("kind", new.kind.as_str()),
        );
        Ok(new.into_invitation(organization_id, times))
    }
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
