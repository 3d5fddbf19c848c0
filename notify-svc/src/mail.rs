//! From a rendered email to the bytes that SMTP carries (RFC 5322), and the two ways that take them.

use std::time::SystemTime;

use lettre::{
    Address, Message,
    message::{
        Mailbox, MultiPart,
        header::{Header, HeaderName, HeaderValue},
    },
};
use uuid::Uuid;

use crate::{
    domain::{Recipient, Reply, Stage},
    render::Rendered,
};

/// Longest display name that is put into a header; longer ones are cut.
const MAX_DISPLAY_NAME: usize = 120;

/// An email, ready to be handed over.
#[derive(Clone)]
pub struct OutgoingMail {
    /// Whom it is sent for.
    pub delivery_id: Uuid,
    /// Envelope sender.
    pub sender: Address,
    /// Envelope recipient.
    pub recipient: Address,
    /// Headers and body.
    pub raw: Vec<u8>,
}

/// Why an email was not accepted, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The relay cannot be reached or does not let us in: no email can go.
    #[error("{0}")]
    Relay(String),
    /// The relay closed a connection that was kept open, before anything of the email was accepted: nothing is said
    /// about the relay or the email, which goes at once over a new connection.
    #[error("the connection was closed while it was not used")]
    Stale,
    /// The relay went before it could accept the email, or said that it is going (421): it was not accepted for
    /// certain.
    #[error("the connection was lost before the end of the email")]
    Interrupted,
    /// The relay refused it.
    #[error("the relay answered {reply}")]
    Refused {
        /// Which command was refused.
        stage: Stage,
        /// What it said.
        reply: Reply,
    },
    /// Everything was sent and no answer came: it may have been accepted.
    #[error("the relay's answer was lost")]
    AnswerLost,
    /// The relay does not take addresses outside ASCII (RFC 6531).
    #[error("the relay does not support SMTPUTF8, which the recipient needs")]
    NeedsSmtpUtf8,
}

/// A way for emails to leave: an SMTP relay, or the local inbox.
pub trait MailTransport: Clone + Send + Sync + 'static {
    /// An open way.
    type Connection: MailConnection;

    /// What the log calls it, for example `smtps://mail.example.org:465`.
    fn name(&self) -> String;

    /// Opens a way, or takes one that is open. Waits while all are in use.
    ///
    /// Fails with [`SendError::Relay`] or a refusal at [`Stage::Connect`].
    fn connect(&self) -> impl Future<Output = Result<Self::Connection, SendError>> + Send;
}

/// An open way for emails. Takes care of itself when it is dropped.
pub trait MailConnection: Send {
    /// Hands an email over and waits for the answer: `Ok` means that the relay has taken responsibility. Never
    /// [`SendError::Stale`].
    ///
    /// Not to be cancelled: nobody would know whether the email was accepted.
    fn send(self, mail: &OutgoingMail) -> impl Future<Output = Result<Reply, SendError>> + Send;
}

/// What all emails of a deployment have in common.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// Address in the From header and the SMTP envelope.
    pub from: Address,
}

/// What the headers of an email say besides the subject.
pub struct MessageHeaders<'a> {
    /// The delivery.
    pub delivery_id: Uuid,
    /// Name in the From header.
    pub sender_name: &'a str,
    /// Reply-To address.
    pub reply_to: Option<&'a str>,
    /// To whom it goes.
    pub recipient: &'a Recipient,
    /// Name in the To header; may be empty.
    pub recipient_name: &'a str,
    /// Time in the Date header.
    pub date: SystemTime,
}

impl Envelope {
    /// The Message-ID of a delivery, the same in all its attempts, so that a recipient's server can drop
    /// a repetition.
    #[must_use]
    pub fn message_id(&self, delivery_id: Uuid) -> String {
        format!("<{delivery_id}@{}>", self.from.domain())
    }

    /// Writes an email.
    ///
    /// # Errors
    /// If a header cannot be written.
    pub fn write(
        &self,
        headers: &MessageHeaders<'_>,
        rendered: Rendered,
    ) -> Result<OutgoingMail, lettre::error::Error> {
        let recipient = headers.recipient.address().clone();
        let mut builder = Message::builder()
            .from(Mailbox::new(
                display_name(headers.sender_name),
                self.from.clone(),
            ))
            .to(Mailbox::new(
                display_name(headers.recipient_name),
                recipient.clone(),
            ))
            .subject(one_line(&rendered.subject))
            .date(headers.date)
            .message_id(Some(self.message_id(headers.delivery_id)))
            .header(AutoSubmitted);
        if let Some(reply_to) = headers.reply_to.and_then(|address| address.parse().ok()) {
            builder = builder.reply_to(Mailbox::new(None, reply_to));
        }
        let message = builder.multipart(MultiPart::alternative_plain_html(
            rendered.text,
            rendered.html,
        ))?;
        Ok(OutgoingMail {
            delivery_id: headers.delivery_id,
            sender: self.from.clone(),
            recipient,
            raw: message.formatted(),
        })
    }
}

/// `Auto-Submitted: auto-generated` (RFC 3834): no vacation notices, please.
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

/// A name that can stand in a header: `None` for an empty one.
fn display_name(name: &str) -> Option<String> {
    let name: String = one_line(name).chars().take(MAX_DISPLAY_NAME).collect();
    Some(name).filter(|name| !name.is_empty())
}

/// Text without line ends and other controls, which could begin a header of their own.
fn one_line(text: &str) -> String {
    let printable = text.replace(char::is_control, " ");
    printable.split_whitespace().collect::<Vec<_>>().join(" ")
}
