//! Requests for emails, as account-svc publishes them.

use prost::Message as _;
use time::OffsetDateTime;
use usher_proto::{
    event::v1::{
        Event, InvitationKind, InvitationRequested, MailClass, OrganizationFace, SealedToken,
        event::Payload,
    },
    topology::{SCHEMA_VERSION, routing_key},
};
use usher_runtime::{
    bus::Message,
    seal::{PublicKey, TokenUse, seal},
    timestamp,
    trace_context::TraceContext,
};
use uuid::Uuid;

/// An email that is asked for.
pub struct Mail {
    pub invitation_id: Uuid,
    pub message: Message,
}

/// One of some organizations.
pub fn organization(number: usize) -> Uuid {
    Uuid::from_u128(0x0191_0000_0000_7000_8000_0000_0000_0000 + number as u128)
}

impl Mail {
    /// # Errors
    /// If nothing can be sealed to `key`.
    pub fn new(
        key: &PublicKey,
        organization_id: Uuid,
        mail_class: MailClass,
        recipient: &str,
    ) -> anyhow::Result<Self> {
        let (event_id, invitation_id) = (Uuid::now_v7(), Uuid::now_v7());
        let organization_id = organization_id.to_string();
        let mut requested = InvitationRequested {
            invitation_id: invitation_id.to_string(),
            account_id: Uuid::now_v7().to_string(),
            kind: InvitationKind::Activation.into(),
            mail_class: mail_class.into(),
            send_number: 1,
            recipient: recipient.to_owned(),
            given_name: "Zoë".to_owned(),
            family_name: "Łukasiewicz-O'Hara".to_owned(),
            locale: "en".to_owned(),
            organization: Some(OrganizationFace {
                display_name: "Maison Élan & Fils".to_owned(),
                portal_url: "https://portal.example".to_owned(),
                ..Default::default()
            }),
            expire_time: Some(timestamp::encode(now() + time::Duration::days(30))),
            ..Default::default()
        };
        let token = format!("token-of-{invitation_id}");
        let sealed = seal(key, &token, TokenUse::of(&organization_id, &requested))?;
        requested.sealed_token = Some(SealedToken {
            encapsulated_key: sealed.encapsulated_key,
            ciphertext: sealed.ciphertext,
        });
        let event = Event {
            event_id: event_id.to_string(),
            event_type: routing_key::INVITATION_REQUESTED.to_owned(),
            occur_time: Some(timestamp::encode(now())),
            organization_id,
            schema_version: SCHEMA_VERSION,
            payload: Some(Payload::InvitationRequested(requested)),
        };
        let message = Message {
            event_id,
            event_type: routing_key::INVITATION_REQUESTED.to_owned(),
            body: event.encode_to_vec(),
            trace_context: TraceContext(None),
        };
        Ok(Self {
            invitation_id,
            message,
        })
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the run plays account-svc's clock"
)]
fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}
