//! What an email says, apart from its link.

use serde::{Deserialize, Serialize};
use usher_proto::notify::v1 as proto;

/// The values of an email's templates and headers, as the event brought them. Holds personal data: never
/// logged, so it has no `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailContent {
    /// Given name of the recipient.
    pub given_name: String,
    /// Family name of the recipient.
    pub family_name: String,
    /// Name of the organization.
    pub organization_name: String,
    /// Base of the link, without a trailing slash.
    pub portal_url: String,
    /// Name in the From header.
    pub sender_name: String,
    /// Reply-To address.
    pub reply_to: Option<String>,
    /// Absolute HTTPS URL of a logo.
    pub logo_url: Option<String>,
    /// Brand colour as `#rrggbb`.
    pub color: Option<String>,
    /// Form that the recipient is asked to fill in.
    pub form_id: Option<String>,
}

/// What an email is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MailKind {
    /// Take an account over.
    Activation,
    /// Share information with an organization.
    ShareRequest,
}

impl MailKind {
    /// Every kind that there are templates for.
    pub const ALL: [Self; 2] = [Self::Activation, Self::ShareRequest];

    /// Its name in the database and in the contract.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Activation => "ACTIVATION",
            Self::ShareRequest => "SHARE_REQUEST",
        }
    }

    /// The link that an email of this kind holds.
    #[must_use]
    pub fn link(self, portal_url: &str, token: &str) -> String {
        let page = match self {
            Self::Activation => "activate",
            Self::ShareRequest => "share",
        };
        format!("{portal_url}/{page}?token={token}")
    }
}

impl TryFrom<&str> for MailKind {
    type Error = super::UnknownValue;

    fn try_from(name: &str) -> Result<Self, super::UnknownValue> {
        match name {
            "ACTIVATION" => Ok(Self::Activation),
            "SHARE_REQUEST" => Ok(Self::ShareRequest),
            _ => Err(super::UnknownValue("kind of mail")),
        }
    }
}

impl From<MailKind> for proto::TemplateKind {
    fn from(kind: MailKind) -> Self {
        match kind {
            MailKind::Activation => Self::Activation,
            MailKind::ShareRequest => Self::ShareRequest,
        }
    }
}
