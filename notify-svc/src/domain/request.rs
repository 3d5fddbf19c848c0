//! What other services ask for.

use time::OffsetDateTime;
use usher_runtime::{seal::Sealed, trace_context::TraceContext};
use uuid::Uuid;

use super::{MailClass, MailContent, MailKind, Recipient};

/// An email to be sent.
#[derive(Clone)]
pub struct MailRequest {
    /// The organization that it is sent for.
    pub organization_id: Uuid,
    /// The invitation that it belongs to.
    pub invitation_id: Uuid,
    /// Which email of the invitation, from 1.
    pub send_number: i32,
    /// What it is for.
    pub kind: MailKind,
    /// How urgent it is.
    pub mail_class: MailClass,
    /// BCP 47 tag.
    pub locale: String,
    /// To whom it goes.
    pub recipient: Recipient,
    /// What it says.
    pub content: MailContent,
    /// It is not sent after this.
    pub expire_time: OffsetDateTime,
    /// The token of its link.
    pub sealed: Sealed,
    /// The trace of the event.
    pub trace_context: TraceContext,
}

/// Emails that must not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revocation {
    /// The organization of the invitation.
    pub organization_id: Uuid,
    /// The invitation.
    pub invitation_id: Uuid,
    /// All emails up to this number are void.
    pub send_number: i32,
}
