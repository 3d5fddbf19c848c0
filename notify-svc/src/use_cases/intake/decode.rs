//! From an event to what it asks for. What is wrong with an event is said without repeating its content: the
//! reason is stored and logged.

use usher_proto::event::v1::{self as event, event::Payload};
use usher_runtime::{event::ReceivedEvent, seal::Sealed, timestamp, trace_context::TraceContext};
use uuid::Uuid;

use crate::domain::{
    InvalidRecipient, MailClass, MailContent, MailKind, MailRequest, Recipient, Revocation,
};

/// Longest text of an event that is taken: far above what account-svc lets through.
const MAX_TEXT: usize = 2_000;

/// What an event asks for.
#[derive(Clone)]
pub enum Command {
    /// Send an email.
    Send(Box<MailRequest>),
    /// Do not send the emails of an invitation.
    Revoke(Revocation),
}

/// Why an event can never be handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// This version does not handle what happened.
    #[error("the payload is not supported by this version; upgrade it, then replay")]
    UnsupportedPayload,
    /// A part is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A part is malformed.
    #[error("{0} is malformed")]
    Malformed(&'static str),
    /// No email can be sent to the recipient.
    #[error("recipient: {0}")]
    Recipient(#[from] InvalidRecipient),
}

/// Decodes an event.
///
/// # Errors
/// If it can never be handled by this version.
pub fn decode(event: ReceivedEvent) -> Result<Command, DecodeError> {
    let organization_id = event.organization_id;
    match event.payload {
        Payload::InvitationRequested(request) => {
            decode_request(organization_id, request, event.trace_context)
                .map(|request| Command::Send(Box::new(request)))
        }
        Payload::InvitationRevoked(revoked) => Ok(Command::Revoke(Revocation {
            organization_id,
            invitation_id: id("invitation_id", &revoked.invitation_id)?,
            send_number: send_number(revoked.send_number)?,
        })),
        _ => Err(DecodeError::UnsupportedPayload),
    }
}

fn decode_request(
    organization_id: Uuid,
    request: event::InvitationRequested,
    trace_context: TraceContext,
) -> Result<MailRequest, DecodeError> {
    let kind = match request.kind() {
        event::InvitationKind::Activation => MailKind::Activation,
        event::InvitationKind::ShareRequest => MailKind::ShareRequest,
        event::InvitationKind::Unspecified => return Err(DecodeError::Malformed("kind")),
    };
    let mail_class = MailClass::try_from(request.mail_class())
        .map_err(|_| DecodeError::Malformed("mail_class"))?;
    let sealed = request
        .sealed_token
        .ok_or(DecodeError::Missing("sealed_token"))?;
    let expire_time = request
        .expire_time
        .ok_or(DecodeError::Missing("expire_time"))?;
    let face = request
        .organization
        .ok_or(DecodeError::Missing("organization"))?;
    Ok(MailRequest {
        organization_id,
        invitation_id: id("invitation_id", &request.invitation_id)?,
        send_number: send_number(request.send_number)?,
        kind,
        mail_class,
        locale: required("locale", request.locale)?,
        recipient: Recipient::parse(&request.recipient)?,
        content: content(
            request.given_name,
            request.family_name,
            request.form_id,
            face,
        )?,
        expire_time: timestamp::decode(expire_time).ok_or(DecodeError::Malformed("expire_time"))?,
        sealed: Sealed {
            encapsulated_key: sealed.encapsulated_key,
            ciphertext: sealed.ciphertext,
        },
        trace_context,
    })
}

fn content(
    given_name: String,
    family_name: String,
    form_id: String,
    face: event::OrganizationFace,
) -> Result<MailContent, DecodeError> {
    let organization_name = required("organization.display_name", face.display_name)?;
    let portal_url = required("organization.portal_url", face.portal_url)?;
    if !["https://", "http://"]
        .iter()
        .any(|scheme| portal_url.starts_with(scheme))
    {
        return Err(DecodeError::Malformed("organization.portal_url"));
    }
    let reply_to = optional("organization.reply_to", face.reply_to)?;
    if let Some(address) = &reply_to {
        Recipient::parse(address).map_err(|_| DecodeError::Malformed("organization.reply_to"))?;
    }
    Ok(MailContent {
        given_name: text("given_name", given_name)?,
        family_name: text("family_name", family_name)?,
        sender_name: optional("organization.sender_name", face.sender_name)?
            .unwrap_or_else(|| organization_name.clone()),
        organization_name,
        portal_url: portal_url.trim_end_matches('/').to_owned(),
        reply_to,
        logo_url: optional("organization.logo_url", face.logo_url)?,
        color: optional("organization.color", face.color)?,
        form_id: optional("form_id", form_id)?,
    })
}

fn id(field: &'static str, text: &str) -> Result<Uuid, DecodeError> {
    if text.is_empty() {
        return Err(DecodeError::Missing(field));
    }
    Uuid::try_parse(text).map_err(|_| DecodeError::Malformed(field))
}

fn send_number(number: u32) -> Result<i32, DecodeError> {
    i32::try_from(number)
        .ok()
        .filter(|number| *number > 0)
        .ok_or(DecodeError::Malformed("send_number"))
}

/// A text without control characters: PostgreSQL takes no NUL, and a header no line end.
fn text(field: &'static str, text: String) -> Result<String, DecodeError> {
    if text.len() > MAX_TEXT || text.chars().any(char::is_control) {
        return Err(DecodeError::Malformed(field));
    }
    Ok(text)
}

fn required(field: &'static str, value: String) -> Result<String, DecodeError> {
    if value.is_empty() {
        return Err(DecodeError::Missing(field));
    }
    text(field, value)
}

fn optional(field: &'static str, value: String) -> Result<Option<String>, DecodeError> {
    text(field, value).map(|value| Some(value).filter(|value| !value.is_empty()))
}
