//! Events as account-svc publishes them.

use prost::Message as _;
use time::OffsetDateTime;
use usher_proto::{
    event::v1::{self as event, Event, InvitationRequested, InvitationRevoked, event::Payload},
    topology::{SCHEMA_VERSION, routing_key},
};
use usher_runtime::{
    bus::Message,
    seal::{PublicKey, TokenUse, seal},
    timestamp,
    trace_context::TraceContext,
};
use uuid::Uuid;

/// An invitation event in the making.
#[derive(Clone)]
pub struct Request {
    /// What its token is sealed to.
    key: PublicKey,
    pub organization_id: Uuid,
    pub requested: InvitationRequested,
    pub event_id: Uuid,
}

impl Request {
    pub fn new(key: &PublicKey, recipient: &str) -> Self {
        let mut request = Self {
            key: key.clone(),
            organization_id: Uuid::from_u128(0x0191_0000_0000_7000_8000_0000_0000_0001),
            requested: requested(recipient),
            event_id: Uuid::now_v7(),
        };
        request.seal();
        request
    }

    /// Seals the token for the email as it is now.
    pub fn seal(&mut self) {
        let organization_id = self.organization_id.to_string();
        let token = token_of(&self.requested.invitation_id);
        let token_use = TokenUse::of(&organization_id, &self.requested);
        let sealed = seal(&self.key, &token, token_use).unwrap();
        self.requested.sealed_token = Some(event::SealedToken {
            encapsulated_key: sealed.encapsulated_key,
            ciphertext: sealed.ciphertext,
        });
    }

    pub fn message(&self) -> Message {
        envelope(
            self.event_id,
            self.organization_id,
            routing_key::INVITATION_REQUESTED,
            Payload::InvitationRequested(self.requested.clone()),
        )
    }

    pub fn revocation(&self) -> Message {
        envelope(
            Uuid::now_v7(),
            self.organization_id,
            routing_key::INVITATION_REVOKED,
            Payload::InvitationRevoked(InvitationRevoked {
                invitation_id: self.requested.invitation_id.clone(),
                send_number: self.requested.send_number,
            }),
        )
    }

    pub fn bulk(mut self) -> Self {
        self.requested.mail_class = event::MailClass::Bulk.into();
        self
    }

    pub fn expiring_in(mut self, delay: time::Duration) -> Self {
        self.requested.expire_time = Some(timestamp::encode(now() + delay));
        self
    }
}

pub fn envelope(
    event_id: Uuid,
    organization_id: Uuid,
    event_type: &str,
    payload: Payload,
) -> Message {
    let event = Event {
        event_id: event_id.to_string(),
        event_type: event_type.to_owned(),
        occur_time: Some(timestamp::encode(now())),
        organization_id: organization_id.to_string(),
        schema_version: SCHEMA_VERSION,
        payload: Some(payload),
    };
    Message {
        event_id,
        event_type: event_type.to_owned(),
        body: event.encode_to_vec(),
        trace_context: TraceContext(None),
    }
}

/// The token of an invitation, so that tests can look for it.
pub fn token_of(invitation_id: &str) -> String {
    format!("raw-token-of-{invitation_id}")
}

fn requested(recipient: &str) -> InvitationRequested {
    InvitationRequested {
        invitation_id: Uuid::now_v7().to_string(),
        account_id: Uuid::now_v7().to_string(),
        kind: event::InvitationKind::Activation.into(),
        mail_class: event::MailClass::Interactive.into(),
        send_number: 1,
        recipient: recipient.to_owned(),
        given_name: "Zoë".to_owned(),
        family_name: "Łukasiewicz-O'Hara".to_owned(),
        locale: "en".to_owned(),
        organization: Some(event::OrganizationFace {
            display_name: "Maison Élan & Fils".to_owned(),
            portal_url: "https://portal.example".to_owned(),
            reply_to: "desk@elan.example".to_owned(),
            ..Default::default()
        }),
        expire_time: Some(timestamp::encode(now() + time::Duration::days(30))),
        ..Default::default()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the test plays account-svc's clock"
)]
pub fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

pub fn instant(timestamp: Option<prost_types::Timestamp>) -> OffsetDateTime {
    let timestamp = timestamp.expect("a time");
    OffsetDateTime::from_unix_timestamp_nanos(
        i128::from(timestamp.seconds) * 1_000_000_000 + i128::from(timestamp.nanos),
    )
    .unwrap()
}
