//! What stands in the audit log. No values of a profile, no token and no password.

use std::collections::BTreeMap;

use time::OffsetDateTime;
use uuid::Uuid;

/// Declares the enum of actions with their names in the contract.
macro_rules! actions {
    ($($(#[$doc:meta])* $action:ident = $name:literal,)+) => {
        /// What was done. The contract (`AuditEvent.action`) lists the names, in the same order.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum AuditAction {
            $($(#[$doc])* $action,)+
        }

        impl AuditAction {
            /// Every action.
            pub const ALL: &'static [Self] = &[$(Self::$action),+];

            /// Its name in the contract.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$action => $name,)+ }
            }
        }
    };
}

actions! {
    /// An organization was created.
    OrganizationCreated = "organization.created",
    /// An organization changed.
    OrganizationUpdated = "organization.updated",
    /// An account was created.
    AccountCreated = "account.created",
    /// The profile of an account changed.
    AccountUpdated = "account.updated",
    /// A client took an account over.
    AccountActivated = "account.activated",
    /// An account was closed.
    AccountClosed = "account.closed",
    /// A closed account was opened again.
    AccountReopened = "account.reopened",
    /// A warning of possible duplicates was ignored.
    DuplicateIgnored = "duplicate.ignored",
    /// An email that invites a client was asked for.
    InvitationSent = "invitation.sent",
    /// What goes with an invitation changed before its email was sent.
    InvitationUpdated = "invitation.updated",
    /// An invitation was withdrawn.
    InvitationRevoked = "invitation.revoked",
}

impl AuditAction {
    /// The action of a filter, from its name.
    ///
    /// # Errors
    /// Says what is accepted.
    pub fn filter(name: &str) -> Result<Self, String> {
        Self::ALL
            .iter()
            .copied()
            .find(|action| action.as_str() == name)
            .ok_or_else(|| {
                let accepted: Vec<_> = Self::ALL.iter().map(|action| action.as_str()).collect();
                format!("not an action; accepted: {}", accepted.join(", "))
            })
    }
}

impl From<AuditAction> for &'static str {
    fn from(action: AuditAction) -> Self {
        action.as_str()
    }
}

/// An entry as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEvent {
    /// Identity.
    pub audit_event_id: Uuid,
    /// The account; `None` for what concerns the organization.
    pub account_id: Option<Uuid>,
    /// Who did it.
    pub actor: String,
    /// What was done.
    pub action: String,
    /// Particulars.
    pub details: BTreeMap<String, String>,
    /// W3C trace id of the call; empty without one.
    pub trace_id: String,
    /// When it was done.
    pub occur_time: OffsetDateTime,
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use prost_types::{FileDescriptorProto, FileDescriptorSet};

    use super::*;

    /// The comment at a field of a message of the contract.
    fn comment(message: &str, field: &str) -> String {
        let set = FileDescriptorSet::decode(usher_proto::FILE_DESCRIPTOR_SET).unwrap();
        let path = |file: &FileDescriptorProto| {
            let messages = &file.message_type;
            let at = messages.iter().position(|found| found.name() == message)?;
            let fields = &messages[at].field;
            let field_at = fields.iter().position(|found| found.name() == field)?;
            // Numbers of `message_type` and `field` in descriptor.proto.
            Some([4, i32::try_from(at).ok()?, 2, i32::try_from(field_at).ok()?])
        };
        let (file, path) = set
            .file
            .iter()
            .find_map(|file| Some((file, path(file)?)))
            .expect("the field exists");
        let locations = &file.source_code_info.as_ref().unwrap().location;
        let location = locations.iter().find(|location| location.path == path);
        location.unwrap().leading_comments().to_owned()
    }

    #[test]
    fn the_contract_lists_every_action() {
        let comment = comment("AuditEvent", "action");
        let listed: Vec<&str> = comment.split('`').skip(1).step_by(2).collect();
        let actions: Vec<&str> = AuditAction::ALL
            .iter()
            .map(|action| action.as_str())
            .collect();
        assert_eq!(listed, actions);
    }
}
