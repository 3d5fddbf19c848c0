//! What a recipient can be sent, by whichever organization: it protects a person.

use std::time::Duration;

use aws_lc_rs::digest;

use super::{MailClass, Recipient, Window};

/// A limit of recipients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum LimitName {
    /// Of invitations and the like.
    Mail,
    /// Of security mail, which does not wait behind invitations.
    Security,
}

impl LimitName {
    /// Its name in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mail => "MAIL",
            Self::Security => "SECURITY",
        }
    }
}

impl From<MailClass> for LimitName {
    fn from(class: MailClass) -> Self {
        match class {
            MailClass::Security => Self::Security,
            MailClass::Interactive | MailClass::Bulk => Self::Mail,
        }
    }
}

/// What emails of one recipient under one limit are counted by: the first 64 bits of a SHA-256, so that no address is
/// stored, and a number can be locked. Two recipients that share one, which is unlikely among billions, share a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, sqlx::Type)]
#[sqlx(transparent)]
pub struct RecipientKey(pub i64);

impl RecipientKey {
    /// That of a recipient.
    #[must_use]
    pub fn new(limit_name: LimitName, recipient: &Recipient) -> Self {
        // No address holds a space.
        let text = format!("{} {}", limit_name.as_str(), recipient.canonical());
        let digest = digest::digest(&digest::SHA256, text.as_bytes());
        let first = digest.as_ref().first_chunk().copied().unwrap_or_default();
        Self(i64::from_be_bytes(first))
    }
}

/// The limits of each recipient.
#[derive(Debug, Clone, Copy)]
pub struct RecipientLimits {
    /// Of invitations and the like.
    pub mail: Window,
    /// Of security mail.
    pub security: Window,
}

impl RecipientLimits {
    /// One of them.
    #[must_use]
    pub fn get(&self, limit_name: LimitName) -> &Window {
        match limit_name {
            LimitName::Mail => &self.mail,
            LimitName::Security => &self.security,
        }
    }

    /// How long an email counts at most.
    #[must_use]
    pub fn memory(&self) -> Duration {
        self.mail.memory().max(self.security.memory())
    }
}
