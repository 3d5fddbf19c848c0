//! Which limits an email is under besides its recipient's.

use crate::{
    domain::Recipient,
    throttle::{Key, Limit},
};

/// The name of the limit of the relay.
pub const RELAY: &str = "relay";

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
        let relay = self.relay.map(|limit| (Key::new(RELAY, ""), limit));
        [domain, organization, relay]
            .into_iter()
            .flatten()
            .collect()
    }
}
