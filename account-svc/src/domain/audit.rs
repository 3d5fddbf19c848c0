//! What stands in the audit log. No values of a profile, no token and no password.

use std::collections::BTreeMap;

use time::OffsetDateTime;
use uuid::Uuid;

/// What was done. The contract (`AuditEvent.action`) lists the names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditAction {
    /// An organization was created.
    OrganizationCreated,
    /// An organization changed.
    OrganizationUpdated,
    /// An account was created.
    AccountCreated,
    /// The profile of an account changed.
    AccountUpdated,
    /// A client took an account over.
    AccountActivated,
    /// An account was closed.
    AccountClosed,
    /// A closed account was opened again.
    AccountReopened,
    /// A warning of possible duplicates was ignored.
    DuplicateIgnored,
    /// A client was invited.
    InvitationSent,
    /// An invitation was withdrawn.
    InvitationRevoked,
}

impl AuditAction {
    /// Its name in the contract.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OrganizationCreated => "organization.created",
            Self::OrganizationUpdated => "organization.updated",
            Self::AccountCreated => "account.created",
            Self::AccountUpdated => "account.updated",
            Self::AccountActivated => "account.activated",
            Self::AccountClosed => "account.closed",
            Self::AccountReopened => "account.reopened",
            Self::DuplicateIgnored => "duplicate.ignored",
            Self::InvitationSent => "invitation.sent",
            Self::InvitationRevoked => "invitation.revoked",
        }
    }
}

/// An entry to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// What was done.
    pub action: AuditAction,
    /// The account that it was done to; `None` for what concerns the organization.
    pub account_id: Option<Uuid>,
    /// Particulars, each up to 1,000 characters.
    pub details: BTreeMap<&'static str, String>,
}

impl AuditEntry {
    /// An entry about an account.
    #[must_use]
    pub fn of_account(action: AuditAction, account_id: Uuid) -> Self {
        Self {
            action,
            account_id: Some(account_id),
            details: BTreeMap::new(),
        }
    }

    /// An entry about the organization.
    #[must_use]
    pub fn of_organization(action: AuditAction) -> Self {
        Self {
            action,
            account_id: None,
            details: BTreeMap::new(),
        }
    }

    /// Adds a particular, unless it is empty.
    #[must_use]
    pub fn detail(mut self, name: &'static str, value: impl Into<String>) -> Self {
        let value: String = value.into();
        if !value.is_empty() {
            self.details.insert(name, value);
        }
        self
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
