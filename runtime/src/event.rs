//! Events as consumers receive them: the envelope is checked here, once for all of them.

use prost::Message as _;
use usher_proto::{
    event::v1::{Event, event::Payload},
    topology::{Queue, SCHEMA_VERSION},
};
use uuid::Uuid;

use crate::{bus::Message, hidden_debug, trace_context::TraceContext};

/// An event whose envelope is in order. What its payload says is still to be checked.
#[derive(Clone, PartialEq)]
pub struct ReceivedEvent {
    /// What a repetition is recognized by.
    pub event_id: Uuid,
    /// The organization whose data changed.
    pub organization_id: Uuid,
    /// What happened.
    pub payload: Payload,
    /// The trace that it belongs to.
    pub trace_context: TraceContext,
}

hidden_debug!(ReceivedEvent { event_id });

/// Why a message is not an event that a queue takes. Says nothing of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The bytes are no event.
    #[error("the body is not a usher.event.v1.Event")]
    NotAnEvent,
    /// Written by a newer version.
    #[error("schema_version {0} is newer than this service knows; upgrade it, then replay")]
    NewerSchema(u32),
    /// The body and the broker's properties name two events.
    #[error("event_id differs from the message id")]
    OtherEventId,
    /// The body and the broker's properties name two types.
    #[error("event_type differs from the type of the message")]
    OtherEventType,
    /// The queue is not for events of this type.
    #[error("event_type is not one that this queue takes")]
    UnknownEventType,
    /// The organization is missing or no UUID.
    #[error("organization_id is malformed")]
    MalformedOrganizationId,
    /// The event does not say what happened, or in a way that this version does not know.
    #[error("the payload is missing or not known to this version; upgrade it, then replay")]
    UnknownPayload,
}

impl ReceivedEvent {
    /// Opens a message of `queue`.
    ///
    /// # Errors
    /// If this version can never handle it.
    pub fn open(message: &Message, queue: Queue) -> Result<Self, EnvelopeError> {
        let event = Event::decode(&*message.body).map_err(|_| EnvelopeError::NotAnEvent)?;
        if event.schema_version > SCHEMA_VERSION {
            return Err(EnvelopeError::NewerSchema(event.schema_version));
        }
        // Repetitions are recognized by the one, and the other stands in logs and dead letters.
        if Uuid::try_parse(&event.event_id) != Ok(message.event_id) {
            return Err(EnvelopeError::OtherEventId);
        }
        if event.event_type != message.event_type {
            return Err(EnvelopeError::OtherEventType);
        }
        if !queue.routing_keys.contains(&event.event_type.as_str()) {
            return Err(EnvelopeError::UnknownEventType);
        }
        Ok(Self {
            event_id: message.event_id,
            organization_id: Uuid::try_parse(&event.organization_id)
                .map_err(|_| EnvelopeError::MalformedOrganizationId)?,
            payload: event.payload.ok_or(EnvelopeError::UnknownPayload)?,
            trace_context: message.trace_context.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use usher_proto::{
        event::v1::InvitationRevoked,
        topology::{NOTIFY_INVITATIONS, routing_key},
    };

    use super::*;

    fn event() -> Event {
        Event {
            event_id: Uuid::now_v7().to_string(),
            event_type: routing_key::INVITATION_REVOKED.to_owned(),
            organization_id: Uuid::now_v7().to_string(),
            schema_version: SCHEMA_VERSION,
            payload: Some(Payload::InvitationRevoked(InvitationRevoked::default())),
            ..Default::default()
        }
    }

    /// As the broker hands it over.
    fn message(event: &Event) -> Message {
        Message {
            event_id: Uuid::try_parse(&event.event_id).unwrap(),
            event_type: event.event_type.clone(),
            body: event.encode_to_vec(),
            trace_context: TraceContext::default(),
        }
    }

    #[test]
    fn an_envelope_in_order_is_opened() {
        let event = event();
        let opened = ReceivedEvent::open(&message(&event), NOTIFY_INVITATIONS).unwrap();
        assert_eq!(opened.event_id.to_string(), event.event_id);
        assert_eq!(opened.organization_id.to_string(), event.organization_id);
        assert_eq!(Some(opened.payload), event.payload);
    }

    #[test]
    fn what_is_wrong_with_an_envelope_is_said() {
        let good = message(&event());
        let garbage = Message {
            body: vec![0xff; 20],
            ..good.clone()
        };
        let other_id = Message {
            event_id: Uuid::now_v7(),
            ..good.clone()
        };
        let other_type = Message {
            event_type: routing_key::INVITATION_REQUESTED.to_owned(),
            ..good
        };
        let newer = message(&Event {
            schema_version: SCHEMA_VERSION + 1,
            ..event()
        });
        let unknown_type = message(&Event {
            event_type: routing_key::DELIVERY_CHANGED.to_owned(),
            ..event()
        });
        let no_organization = message(&Event {
            organization_id: "x".to_owned(),
            ..event()
        });
        let no_payload = message(&Event {
            payload: None,
            ..event()
        });
        for (message, error) in [
            (garbage, EnvelopeError::NotAnEvent),
            (newer, EnvelopeError::NewerSchema(SCHEMA_VERSION + 1)),
            (other_id, EnvelopeError::OtherEventId),
            (other_type, EnvelopeError::OtherEventType),
            (unknown_type, EnvelopeError::UnknownEventType),
            (no_organization, EnvelopeError::MalformedOrganizationId),
            (no_payload, EnvelopeError::UnknownPayload),
        ] {
            let refused = ReceivedEvent::open(&message, NOTIFY_INVITATIONS);
            assert_eq!(refused, Err(error));
        }
    }
}
