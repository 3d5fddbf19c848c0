//! States and classes of deliveries, with their names in the database and in the contract.

use time::OffsetDateTime;
use usher_proto::{event::v1 as event, notify::v1 as proto};
use usher_runtime::trace_context::TraceContext;
use uuid::Uuid;

/// A value of a row or of a message that this version does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown {0}")]
pub struct UnknownValue(pub &'static str);

/// Where an email stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "SCREAMING_SNAKE_CASE")]
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
    /// Every state.
    pub const ALL: [Self; 9] = [
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

    /// Whether an email in this state is still to be sent.
    #[must_use]
    pub const fn waits(self) -> bool {
        match self {
            Self::Queued | Self::Throttled | Self::Unknown => true,
            Self::Sent
            | Self::Delivered
            | Self::Bounced
            | Self::Failed
            | Self::Suppressed
            | Self::Cancelled => false,
        }
    }

    /// Its name as a label of metrics.
    #[must_use]
    pub fn label(self) -> String {
        self.as_str().to_ascii_lowercase()
    }
}

impl TryFrom<proto::DeliveryState> for DeliveryState {
    type Error = UnknownValue;

    fn try_from(state: proto::DeliveryState) -> Result<Self, UnknownValue> {
        Ok(match state {
            proto::DeliveryState::Unspecified => return Err(UnknownValue("delivery state")),
            proto::DeliveryState::Queued => Self::Queued,
            proto::DeliveryState::Throttled => Self::Throttled,
            proto::DeliveryState::Sent => Self::Sent,
            proto::DeliveryState::Delivered => Self::Delivered,
            proto::DeliveryState::Bounced => Self::Bounced,
            proto::DeliveryState::Failed => Self::Failed,
            proto::DeliveryState::Suppressed => Self::Suppressed,
            proto::DeliveryState::Cancelled => Self::Cancelled,
            proto::DeliveryState::Unknown => Self::Unknown,
        })
    }
}

impl From<DeliveryState> for proto::DeliveryState {
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

/// A delivery came to a new state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryChange {
    /// The organization of the delivery.
    pub organization_id: Uuid,
    /// The delivery.
    pub delivery_id: Uuid,
    /// The invitation that it belongs to.
    pub invitation_id: Option<Uuid>,
    /// Which email of the invitation.
    pub send_number: i32,
    /// The new state.
    pub state: DeliveryState,
    /// Orders the changes of a delivery.
    pub revision: i64,
    /// When a throttled email goes.
    pub throttled_until: Option<OffsetDateTime>,
    /// Reply of the relay.
    pub smtp_status: Option<String>,
    /// Why, in words for staff.
    pub reason: Option<String>,
    /// When the change was committed.
    pub change_time: OffsetDateTime,
    /// The trace that asked for the email.
    pub trace_context: TraceContext,
}

/// How urgent an email is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MailClass {
    /// Somebody waits for it.
    Interactive,
    /// One of many.
    Bulk,
    /// Password resets and the like: has limits of its own.
    Security,
}

impl MailClass {
    /// Every class, the most urgent first.
    pub const BY_URGENCY: [Self; 3] = [Self::Security, Self::Interactive, Self::Bulk];

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

impl From<MailClass> for proto::MailClass {
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
    fn states_are_called_as_in_the_contract() {
        for state in DeliveryState::ALL {
            assert_eq!(
                DeliveryState::try_from(proto::DeliveryState::from(state)),
                Ok(state)
            );
            assert_eq!(
                format!("DELIVERY_STATE_{}", state.as_str()),
                event::DeliveryState::from(state).as_str_name()
            );
        }
    }
}
