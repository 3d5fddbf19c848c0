//! Which limits an email is under besides its recipient's.

use crate::{
    domain::Recipient,
    throttle::{Key, Limit},
};

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
