//! What notify-svc reports about emails.

use account_svc::{db::invitation::DeliveryReport, domain::state::InvitationState as EmailState};
use prost::Message as _;
use prost_types::Timestamp;
use time::OffsetDateTime;
use usher_proto::{
    account::v1::{Invitation, InvitationState},
    event::v1::{DeliveryChanged, DeliveryState, Event, event::Payload},
    topology::{SCHEMA_VERSION, routing_key},
};
use usher_runtime::{bus::Message, trace_context::TraceContext};
use uuid::Uuid;

use super::{Service, within};

/// A report on the first email of an invitation; `revision` orders the reports.
pub fn report_of(invitation: &Invitation, state: DeliveryState, revision: u64) -> DeliveryChanged {
    DeliveryChanged {
        delivery_id: Uuid::now_v7().to_string(),
        invitation_id: invitation.invitation_id.clone(),
        send_number: 1,
        state: state.into(),
        revision,
        change_time: Some(Timestamp {
            seconds: 1_700_000_000,
            nanos: 0,
        }),
        ..Default::default()
    }
}

/// The same, as the service decodes it.
pub fn stored_report(invitation: &Invitation, state: EmailState, revision: i64) -> DeliveryReport {
    DeliveryReport {
        organization_id: Uuid::try_parse(&invitation.organization_id).unwrap(),
        invitation_id: Uuid::try_parse(&invitation.invitation_id).unwrap(),
        send_number: 1,
        revision,
        state,
        throttled_until: None,
        failure_reason: String::new(),
        sent_time: state.has_left().then_some(OffsetDateTime::UNIX_EPOCH),
    }
}

/// A time at which a throttled email can go: an hour before its link expires.
pub fn before_expiry(invitation: &Invitation) -> Timestamp {
    Timestamp {
        seconds: invitation.expire_time.unwrap().seconds - 3_600,
        nanos: 123_456_000,
    }
}

impl Service {
    /// Reports that the relay accepted an email, and waits until the invitation shows it.
    pub async fn sent(&mut self, invitation: &Invitation) -> Invitation {
        let sent = report_of(invitation, DeliveryState::Sent, 5);
        self.report(&invitation.organization_id, sent).await;
        self.invitation_in(invitation, InvitationState::Sent).await
    }

    /// Reports the state of an email, as notify-svc does.
    pub async fn report(&self, organization_id: &str, change: DeliveryChanged) {
        let event_id = Uuid::now_v7();
        self.publish_report(event_id, event_id, organization_id, change)
            .await;
    }

    /// A report whose message names another event than its body.
    pub async fn report_as(
        &self,
        message_id: Uuid,
        organization_id: &str,
        change: DeliveryChanged,
    ) {
        self.publish_report(message_id, Uuid::now_v7(), organization_id, change)
            .await;
    }

    async fn publish_report(
        &self,
        message_id: Uuid,
        event_id: Uuid,
        organization_id: &str,
        change: DeliveryChanged,
    ) {
        let event = Event {
            event_id: event_id.to_string(),
            event_type: routing_key::DELIVERY_CHANGED.to_owned(),
            organization_id: organization_id.to_owned(),
            schema_version: SCHEMA_VERSION,
            payload: Some(Payload::DeliveryChanged(change)),
            ..Default::default()
        };
        let message = Message {
            event_id: message_id,
            event_type: routing_key::DELIVERY_CHANGED.to_owned(),
            body: event.encode_to_vec(),
            trace_context: TraceContext::default(),
        };
        for result in within(self.bus.publish(&[message])).await {
            result.unwrap();
        }
    }
}
