//! Events that account-svc publishes, as rows of its outbox.

use prost::Message as _;
use prost_types::Timestamp;
use time::OffsetDateTime;
use usher_proto::{
    event::v1::{
        AccountActivated, AccountCreated, AccountUpdated, Event, InvitationRequested,
        InvitationRevoked, event::Payload,
    },
    topology::{SCHEMA_VERSION, routing_key},
};
use uuid::Uuid;

use crate::db::outbox::OutboxEvent;

/// An account was created.
#[must_use]
pub fn account_created(
    organization_id: Uuid,
    account_id: Uuid,
    state: &str,
    time: OffsetDateTime,
) -> OutboxEvent {
    let payload = AccountCreated {
        account_id: account_id.to_string(),
        state: state.to_owned(),
    };
    event(
        organization_id,
        routing_key::ACCOUNT_CREATED,
        Payload::AccountCreated(payload),
        time,
    )
}

/// The profile of an account changed in the fields named.
#[must_use]
pub fn account_updated(
    organization_id: Uuid,
    account_id: Uuid,
    fields: Vec<String>,
    time: OffsetDateTime,
) -> OutboxEvent {
    let payload = AccountUpdated {
        account_id: account_id.to_string(),
        changed_fields: fields,
    };
    event(
        organization_id,
        routing_key::ACCOUNT_UPDATED,
        Payload::AccountUpdated(payload),
        time,
    )
}

/// An account was taken over by its client.
#[must_use]
pub fn account_activated(
    organization_id: Uuid,
    account_id: Uuid,
    person_id: Uuid,
    invitation_id: Uuid,
    time: OffsetDateTime,
) -> OutboxEvent {
    let payload = AccountActivated {
        account_id: account_id.to_string(),
        person_id: person_id.to_string(),
        invitation_id: invitation_id.to_string(),
    };
    event(
        organization_id,
        routing_key::ACCOUNT_ACTIVATED,
        Payload::AccountActivated(payload),
        time,
    )
}

/// An invitation is to be sent.
#[must_use]
pub fn invitation_requested(
    organization_id: Uuid,
    payload: InvitationRequested,
    time: OffsetDateTime,
) -> OutboxEvent {
    event(
        organization_id,
        routing_key::INVITATION_REQUESTED,
        Payload::InvitationRequested(payload),
        time,
    )
}

/// An invitation is void, with all emails up to `send_number`.
#[must_use]
pub fn invitation_revoked(
    organization_id: Uuid,
    invitation_id: Uuid,
    send_number: i32,
    time: OffsetDateTime,
) -> OutboxEvent {
    let payload = InvitationRevoked {
        invitation_id: invitation_id.to_string(),
        send_number: send_number.try_into().unwrap_or_default(),
    };
    event(
        organization_id,
        routing_key::INVITATION_REVOKED,
        Payload::InvitationRevoked(payload),
        time,
    )
}

fn event(
    organization_id: Uuid,
    event_type: &'static str,
    payload: Payload,
    time: OffsetDateTime,
) -> OutboxEvent {
    let event_id = Uuid::now_v7();
    let event = Event {
        event_id: event_id.to_string(),
        event_type: event_type.to_owned(),
        occur_time: Some(timestamp(time)),
        organization_id: organization_id.to_string(),
        schema_version: SCHEMA_VERSION,
        payload: Some(payload),
    };
    OutboxEvent {
        event_id,
        event_type,
        payload: event.encode_to_vec(),
    }
}

/// A time of the database as it goes over the wire.
#[must_use]
pub fn timestamp(time: OffsetDateTime) -> Timestamp {
    Timestamp {
        seconds: time.unix_timestamp(),
        // Below a billion always.
        nanos: time.nanosecond().try_into().unwrap_or_default(),
    }
}
