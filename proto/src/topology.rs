//! The messaging topology: the exchanges, the queues of Usher's own services, the routing keys.

/// The topic exchange of the events that other services may consume.
pub const EVENTS_EXCHANGE: &str = "usher.events";

/// The direct exchange of what Usher's own services consume. It holds addresses and sealed tokens, which whoever listens
/// to all of [`EVENTS_EXCHANGE`] should not get; and a direct exchange routes faster than a topic exchange.
pub const INTERNAL_EXCHANGE: &str = "usher.internal";

/// Version of [`Event`](crate::event::v1::Event), the envelope, that this build writes and reads.
pub const SCHEMA_VERSION: u32 = 1;

/// AMQP content type of an event.
pub const CONTENT_TYPE: &str = "application/x-protobuf";

/// Routing keys, which are the event types.
pub mod routing_key {
    /// An invitation is to be sent.
    pub const INVITATION_REQUESTED: &str = "invitation.requested.v1";
    /// An invitation is void.
    pub const INVITATION_REVOKED: &str = "invitation.revoked.v1";
    /// An invitation came to a new state.
    pub const INVITATION_CHANGED: &str = "invitation.changed.v1";
    /// Another mail is to be sent.
    pub const MAIL_REQUESTED: &str = "mail.requested.v1";
    /// An account was created.
    pub const ACCOUNT_CREATED: &str = "account.created.v1";
    /// An account's profile changed.
    pub const ACCOUNT_UPDATED: &str = "account.updated.v1";
    /// An account was taken over by its client.
    pub const ACCOUNT_ACTIVATED: &str = "account.activated.v1";
    /// An account was closed.
    pub const ACCOUNT_CLOSED: &str = "account.closed.v1";
    /// Two accounts were merged, or a merge was undone.
    pub const ACCOUNT_MERGED: &str = "account.merged.v1";
    /// The personal data of an account were removed.
    pub const ACCOUNT_ERASED: &str = "account.erased.v1";
    /// A Person agreed to share.
    pub const SHARE_GRANTED: &str = "share.granted.v1";
    /// A Person ended a share.
    pub const SHARE_REVOKED: &str = "share.revoked.v1";
    /// A record found its account.
    pub const RECORD_ATTACHED: &str = "record.attached.v1";
    /// A delivery changed its state.
    pub const DELIVERY_CHANGED: &str = "delivery.changed.v1";
}

/// A durable quorum queue of one of Usher's services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// Name of the queue.
    pub name: &'static str,
    /// Routing keys that it is bound to on [`INTERNAL_EXCHANGE`].
    pub routing_keys: &'static [&'static str],
    /// Quorum queue for messages that cannot be decoded, each with its reason in the header
    /// [`DEAD_LETTER_REASON_HEADER`].
    pub dead_letter_queue: &'static str,
}

/// What notify-svc consumes.
pub const NOTIFY_INVITATIONS: Queue = Queue {
    name: "notify.invitations",
    routing_keys: &[
        routing_key::INVITATION_REQUESTED,
        routing_key::INVITATION_REVOKED,
        routing_key::MAIL_REQUESTED,
    ],
    dead_letter_queue: "notify.invitations.dead",
};

/// What account-svc consumes.
pub const ACCOUNT_DELIVERIES: Queue = Queue {
    name: "account.deliveries",
    routing_keys: &[routing_key::DELIVERY_CHANGED],
    dead_letter_queue: "account.deliveries.dead",
};

/// Every queue that Usher declares.
pub const QUEUES: [Queue; 2] = [NOTIFY_INVITATIONS, ACCOUNT_DELIVERIES];

/// Header of a dead letter that says why it was parked.
pub const DEAD_LETTER_REASON_HEADER: &str = "usher-reason";

/// Whether Usher's own services consume an event. It is published to [`INTERNAL_EXCHANGE`] and must reach a queue:
/// without one it stays in the outbox. The others are news for whoever listens, and nobody has to.
#[must_use]
pub fn is_internal(routing_key: &str) -> bool {
    QUEUES
        .iter()
        .any(|queue| queue.routing_keys.contains(&routing_key))
}

/// The exchange that an event is published to.
#[must_use]
pub fn exchange(routing_key: &str) -> &'static str {
    if is_internal(routing_key) {
        INTERNAL_EXCHANGE
    } else {
        EVENTS_EXCHANGE
    }
}
