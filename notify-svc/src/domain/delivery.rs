//! States and classes of deliveries, with their names in the database and in the contract.

use usher_proto::{event::v1 as event, notify::v1 as notify};

/// A value of the database or of a message that this version does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown {0}")]
pub struct UnknownValue(pub &'static str);

/// Where an email stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeliveryState {
    /// Waits for the sender, also between two attempts.
    Queued,
    /// Waits for a limit.
    Throttled,
    /// Accepted by the relay.
    Sent,
    /// Reported as delivered to the mailbox.
    Delivered,
    /// Accepted by the relay and reported undeliverable later.
    Bounced,
    /// Refused for good, or expired before it could be sent.
    Failed,
    /// The recipient is on the suppression list.
    Suppressed,
    /// The invitation was revoked first.
    Cancelled,
    /// Handed over, and the relay's answer was lost.
    Unknown,
}

impl DeliveryState {
    const ALL: [Self; 9] = [
        Self::Queued,
        Self::Throttled,
        Self::Sent,
        Self::Delivered,
        Self::Bounced,
        Self::Failed,
        Self::Suppressed,
        Self::Cancelled,
        Self::Unknown,
    ];

    /// Its name in the database: the contract's name without the prefix.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "QUEUED",
            Self::Throttled => "THROTTLED",
            Self::Sent => "SENT",
            Self::Delivered => "DELIVERED",
            Self::Bounced => "BOUNCED",
            Self::Failed => "FAILED",
            Self::Suppressed => "SUPPRESSED",
            Self::Cancelled => "CANCELLED",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// Its name as a label of metrics.
    #[must_use]
    pub fn label(self) -> String {
        self.as_str().to_ascii_lowercase()
    }
}

impl TryFrom<&str> for DeliveryState {
    type Error = UnknownValue;

    fn try_from(name: &str) -> Result<Self, UnknownValue> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == name)
            .ok_or(UnknownValue("delivery state"))
    }
}

impl TryFrom<notify::DeliveryState> for DeliveryState {
    type Error = UnknownValue;

    fn try_from(state: notify::DeliveryState) -> Result<Self, UnknownValue> {
        Ok(match state {
            notify::DeliveryState::Unspecified => return Err(UnknownValue("delivery state")),
            notify::DeliveryState::Queued => Self::Queued,
            notify::DeliveryState::Throttled => Self::Throttled,
            notify::DeliveryState::Sent => Self::Sent,
            notify::DeliveryState::Delivered => Self::Delivered,
            notify::DeliveryState::Bounced => Self::Bounced,
            notify::DeliveryState::Failed => Self::Failed,
            notify::DeliveryState::Suppressed => Self::Suppressed,
            notify::DeliveryState::Cancelled => Self::Cancelled,
            notify::DeliveryState::Unknown => Self::Unknown,
        })
    }
}

impl From<DeliveryState> for notify::DeliveryState {
    fn from(state: DeliveryState) -> Self {
        match state {
            DeliveryState::Queued => Self::Queued,
            DeliveryState::Throttled => Self::Throttled,
            DeliveryState::Sent => Self::Sent,
            DeliveryState::Delivered => Self::Delivered,
            DeliveryState::Bounced => Self::Bounced,
            DeliveryState::Failed => Self::Failed,
            DeliveryState::Suppressed => Self::Suppressed,
            DeliveryState::Cancelled => Self::Cancelled,
            DeliveryState::Unknown => Self::Unknown,
        }
    }
}

impl From<DeliveryState> for event::DeliveryState {
    fn from(state: DeliveryState) -> Self {
        match state {
            DeliveryState::Queued => Self::Queued,
            DeliveryState::Throttled => Self::Throttled,
            DeliveryState::Sent => Self::Sent,
            DeliveryState::Delivered => Self::Delivered,
            DeliveryState::Bounced => Self::Bounced,
            DeliveryState::Failed => Self::Failed,
            DeliveryState::Suppressed => Self::Suppressed,
            DeliveryState::Cancelled => Self::Cancelled,
            DeliveryState::Unknown => Self::Unknown,
        }
    }
}

/// How urgent an email is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MailClass {
    /// Somebody waits for it.
    Interactive,
    /// One of many.
    Bulk,
    /// Password resets and the like: has limits of its own.
    Security,
}

impl MailClass {
    /// Its name in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Interactive => "INTERACTIVE",
            Self::Bulk => "BULK",
            Self::Security => "SECURITY",
        }
    }
}

impl TryFrom<&str> for MailClass {
    type Error = UnknownValue;

    fn try_from(name: &str) -> Result<Self, UnknownValue> {
        match name {
            "INTERACTIVE" => Ok(Self::Interactive),
            "BULK" => Ok(Self::Bulk),
            "SECURITY" => Ok(Self::Security),
            _ => Err(UnknownValue("mail class")),
        }
    }
}

impl TryFrom<event::MailClass> for MailClass {
    type Error = UnknownValue;

    fn try_from(class: event::MailClass) -> Result<Self, UnknownValue> {
        match class {
            event::MailClass::Unspecified => Err(UnknownValue("mail class")),
            event::MailClass::Interactive => Ok(Self::Interactive),
            event::MailClass::Bulk => Ok(Self::Bulk),
            event::MailClass::Security => Ok(Self::Security),
        }
    }
}

impl From<MailClass> for notify::MailClass {
    fn from(class: MailClass) -> Self {
        match class {
            MailClass::Interactive => Self::Interactive,
            MailClass::Bulk => Self::Bulk,
            MailClass::Security => Self::Security,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_states() {
        for state in DeliveryState::ALL {
            assert_eq!(DeliveryState::try_from(state.as_str()), Ok(state));
            assert_eq!(
                DeliveryState::try_from(notify::DeliveryState::from(state)),
                Ok(state)
            );
            assert_eq!(
                format!("DELIVERY_STATE_{}", state.as_str()),
                event::DeliveryState::from(state).as_str_name()
            );
        }
        for class in [MailClass::Interactive, MailClass::Bulk, MailClass::Security] {
            assert_eq!(MailClass::try_from(class.as_str()), Ok(class));
        }
    }
}
