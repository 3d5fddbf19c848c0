//! How events and names look in AMQP.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, ExchangeKind};
use usher_proto::topology::{self, Queue};
use uuid::Uuid;

use super::super::Message;
use crate::trace_context::TraceContext;

const TRACEPARENT_HEADER: &str = "traceparent";

/// Delivery mode 2: the broker writes the message to disk.
const PERSISTENT: u8 = 2;

/// Redeliveries after which the broker drops a message. RabbitMQ 4 does so after 20, which a database
/// that is away for a minute uses up for healthy events. -1, meaning never, is refused before RabbitMQ 4.
const DELIVERY_LIMIT: i32 = i32::MAX;

/// The names of the topology, with the prefix of this installation.
pub(super) struct Names {
    prefix: String,
    events_exchange: String,
    internal_exchange: String,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            events_exchange: format!("{prefix}{}", topology::EVENTS_EXCHANGE),
            internal_exchange: format!("{prefix}{}", topology::INTERNAL_EXCHANGE),
        }
    }

    /// The exchange that an event is published to.
    pub(super) fn exchange(&self, event_type: &str) -> &str {
        if topology::is_internal(event_type) {
            &self.internal_exchange
        } else {
            &self.events_exchange
        }
    }

    pub(super) fn queue(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Declares the exchanges and all of Usher's queues. Repeating it changes nothing, so publishers do it
    /// as well: an event that is published before its consumer has ever started finds its queue.
    pub(super) async fn declare_all(&self, channel: &Channel) -> lapin::Result<()> {
        for queue in topology::QUEUES {
            self.declare(channel, queue).await?;
        }
        Ok(())
    }

    /// Declares the exchanges, and one queue with its dead-letter queue and bindings.
    pub(super) async fn declare(&self, channel: &Channel, queue: Queue) -> lapin::Result<()> {
        self.declare_exchanges(channel).await?;
        for name in [queue.name, queue.dead_letter_queue] {
            let options = QueueDeclareOptions::durable();
            channel
                .queue_declare(self.queue(name).into(), options, quorum_queue())
                .await?;
        }
        for &routing_key in queue.routing_keys {
            channel
                .queue_bind(
                    self.queue(queue.name).into(),
                    self.internal_exchange.as_str().into(),
                    routing_key.into(),
                    QueueBindOptions::default(),
                    FieldTable::default(),
                )
                .await?;
        }
        Ok(())
    }

    async fn declare_exchanges(&self, channel: &Channel) -> lapin::Result<()> {
        for (name, kind) in [
            (&self.events_exchange, ExchangeKind::Topic),
            (&self.internal_exchange, ExchangeKind::Direct),
        ] {
            let durable = ExchangeDeclareOptions {
                durable: true,
                ..Default::default()
            };
            channel
                .exchange_declare(name.as_str().into(), kind, durable, FieldTable::default())
                .await?;
        }
        Ok(())
    }
}

fn quorum_queue() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert(
        "x-queue-type".into(),
        AMQPValue::LongString("quorum".into()),
    );
    arguments.insert(
        "x-delivery-limit".into(),
        AMQPValue::LongInt(DELIVERY_LIMIT),
    );
    arguments
}

/// A message and where it goes.
pub(super) struct Outgoing<'a> {
    pub(super) message: &'a Message,
    pub(super) exchange: &'a str,
    pub(super) routing_key: &'a str,
    pub(super) mandatory: bool,
    /// For a dead letter, why it is one.
    pub(super) reason: Option<&'a str>,
}

impl Outgoing<'_> {
    /// Of a message that was checked.
    pub(super) fn properties(&self) -> BasicProperties {
        let message = self.message;
        let mut headers = FieldTable::default();
        if let Some(traceparent) = &message.trace_context.0
            && is_traceparent(traceparent)
        {
            let value = AMQPValue::LongString(traceparent.as_str().into());
            headers.insert(TRACEPARENT_HEADER.into(), value);
        }
        if let Some(reason) = self.reason {
            let value = AMQPValue::LongString(reason.into());
            headers.insert(topology::DEAD_LETTER_REASON_HEADER.into(), value);
        }
        let mut properties = BasicProperties::default()
            .with_message_id(message.event_id.to_string().into())
            .with_type(message.event_type.as_str().into())
            .with_content_type(topology::CONTENT_TYPE.into())
            .with_delivery_mode(PERSISTENT)
            .with_headers(headers);
        // The time of the event, which its UUIDv7 holds.
        if let Some(made) = message.event_id.get_timestamp() {
            properties = properties.with_timestamp(made.to_unix().0);
        }
        properties
    }
}

/// The id of the event in a message that came back or came in.
pub(super) fn event_id(properties: &BasicProperties) -> Option<Uuid> {
    properties.message_id().as_ref()?.as_str().parse().ok()
}

/// The event in a delivery. Its id is nil if the delivery has none.
pub(super) fn message(
    properties: &BasicProperties,
    routing_key: &ShortString,
    body: Vec<u8>,
) -> Message {
    let event_type = properties.kind().as_ref().unwrap_or(routing_key);
    Message {
        event_id: event_id(properties).unwrap_or_default(),
        event_type: event_type.as_str().to_owned(),
        body,
        trace_context: trace_context(properties),
    }
}

fn trace_context(properties: &BasicProperties) -> TraceContext {
    let traceparent = header(properties, TRACEPARENT_HEADER);
    TraceContext(
        traceparent
            .filter(|text| is_traceparent(text))
            .map(str::to_owned),
    )
}

/// Why a dead letter is one; None for other messages.
pub(super) fn dead_letter_reason(properties: &BasicProperties) -> Option<String> {
    header(properties, topology::DEAD_LETTER_REASON_HEADER).map(str::to_owned)
}

fn header<'a>(properties: &'a BasicProperties, name: &str) -> Option<&'a str> {
    match properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::LongString(value) => std::str::from_utf8(value.as_bytes()).ok(),
        _ => None,
    }
}

/// Whether `text` is what Usher carries on. Anything else, of any size, would be written to the database and
/// published again.
///
/// Source: W3C Trace Context, section 3.2.2, version 00: 55 bytes.
fn is_traceparent(text: &str) -> bool {
    let is_hex = |part: &str| {
        part.bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let parts: Vec<_> = text.splitn(5, '-').collect();
    let [version, trace_id, parent_id, flags] = parts[..] else {
        return false;
    };
    version == "00"
        && [(trace_id, 32), (parent_id, 16), (flags, 2)]
            .iter()
            .all(|&(part, length)| part.len() == length && is_hex(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_traceparent_is_carried_on() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(good.len(), 55);
        assert!(is_traceparent(good));
        for bad in [
            "",
            "---",
            &good[..54],
            &format!("{good}0"),
            &format!("{good}-more"),
            &good.to_uppercase(),
            &good.replacen("00", "ff", 1),
            &good.replacen('b', "ü", 1),
            &"0".repeat(130_980),
        ] {
            assert!(!is_traceparent(bad), "{bad}");
        }
    }
}
