//! Events that account-svc publishes, as rows of its outbox.

use time::OffsetDateTime;
use usher_proto::{
    event::v1::{
        AccountActivated, AccountClosed, AccountCreated, AccountUpdated, InvitationRequested,
        InvitationRevoked, event::Payload,
    },
    topology::routing_key,
};
use usher_runtime::outbox::OutboxEvent;
use uuid::Uuid;

use crate::{db::invitation::Ended, domain::state::AccountState};

/// An account was created.
#[must_use]
pub fn account_created(
    organization_id: Uuid,
    account_id: Uuid,
    state: AccountState,
    time: OffsetDateTime,
) -> OutboxEvent {
    let payload = AccountCreated {
        account_id: account_id.to_string(),
        state: state.as_str().to_owned(),
    };
    OutboxEvent::new(
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
    OutboxEvent::new(
        organization_id,
        routing_key::ACCOUNT_UPDATED,
        Payload::AccountUpdated(payload),
        time,
    )
}

/// An account was closed.
#[must_use]
pub fn account_closed(
    organization_id: Uuid,
    account_id: Uuid,
    time: OffsetDateTime,
) -> OutboxEvent {
    let payload = AccountClosed {
        account_id: account_id.to_string(),
    };
    OutboxEvent::new(
        organization_id,
        routing_key::ACCOUNT_CLOSED,
        Payload::AccountClosed(payload),
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
    OutboxEvent::new(
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
    OutboxEvent::new(
        organization_id,
        routing_key::INVITATION_REQUESTED,
        Payload::InvitationRequested(payload),
        time,
    )
}

/// The emails of an invitation that has ended are not to be sent; `None` if the last one has left.
#[must_use]
pub fn email_to_stop(ended: &Ended) -> Option<OutboxEvent> {
    ended.email_may_follow().then(|| {
        invitation_revoked(
            ended.organization_id,
            ended.invitation_id,
            ended.send_count,
            ended.end_time,
        )
    })
}

/// The emails of an invitation, up to the one numbered `send_count`, are not to be sent.
#[must_use]
pub fn invitation_revoked(
    organization_id: Uuid,
    invitation_id: Uuid,
    send_count: i32,
    time: OffsetDateTime,
) -> OutboxEvent {
    let payload = InvitationRevoked {
        invitation_id: invitation_id.to_string(),
        send_number: send_count.try_into().unwrap_or_default(),
    };
    OutboxEvent::new(
        organization_id,
        routing_key::INVITATION_REVOKED,
        Payload::InvitationRevoked(payload),
        time,
    )
}
