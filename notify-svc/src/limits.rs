//! Which limits an email is under. Limits of the recipient are reserved when the email arrives, so that it
//! has its exact time at once; the others when it is about to go, because they change with what else is sent.

use crate::{
    domain::{MailClass, MailRequest, Recipient},
    throttle::{Key, Limit},
};

/// What a recipient can be sent. Their limits hold across organizations: they protect a person.
#[derive(Debug, Clone, Copy)]
pub struct RecipientLimits {
    /// Invitations.
    pub mail: Limit,
    /// Time between two invitations.
    pub gap: Option<Limit>,
    /// Security mail, which must not wait behind invitations.
    pub security: Limit,
}

impl RecipientLimits {
    /// The limits of one email.
    #[must_use]
    pub fn of(&self, request: &MailRequest) -> Vec<(Key, Limit)> {
        let recipient = request.recipient.canonical();
        if request.mail_class == MailClass::Security {
            return vec![(Key::new("recipient_security", &recipient), self.security)];
        }
        let mut limits = vec![(Key::new("recipient", &recipient), self.mail)];
        if let Some(gap) = self.gap {
            limits.push((Key::new("recipient_gap", &recipient), gap));
        }
        limits
    }
}

/// What may be sent to a domain, for an organization and through the relay; `None` means as much as there is.
#[derive(Debug, Clone, Copy, Default)]
pub struct SharedLimits {
    /// Emails to one domain.
    pub domain: Option<Limit>,
    /// Emails of one organization.
    pub organization: Option<Limit>,
    /// All emails.
    pub relay: Option<Limit>,
}

impl SharedLimits {
    /// Whether there are any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.domain.is_none() && self.organization.is_none() && self.relay.is_none()
    }

    /// The limits of one email.
    #[must_use]
    pub fn of(&self, organization_id: uuid::Uuid, recipient: &Recipient) -> Vec<(Key, Limit)> {
        let domain = self
            .domain
            .map(|limit| (Key::new("domain", recipient.domain()), limit));
        let organization = self.organization.map(|limit| {
            (
                Key::new("organization", &organization_id.to_string()),
                limit,
            )
        });
        let relay = self.relay.map(|limit| (Key::new("relay", ""), limit));
        [domain, organization, relay]
            .into_iter()
            .flatten()
            .collect()
    }
}
