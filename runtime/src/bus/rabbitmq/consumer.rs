//! Receives what comes into one queue.

use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Acker, Channel, Consumer};
use usher_proto::topology::Queue;

use super::super::{BusError, Message, Received};
use super::{ANSWER_TIMEOUT, RabbitMq, wire};
use crate::backoff::Backoff;

/// Deliveries that one subscription may hold. Bounds memory, and what a slow replica keeps from the others.
const PREFETCH: u16 = 256;

pub(in super::super) struct Subscription {
    bus: RabbitMq,
    queue: Queue,
    consuming: Option<Consuming>,
    backoff: Backoff,
}

struct Consuming {
    consumer: Consumer,
    channel: Arc<Channel>,
}

impl Subscription {
    pub(super) fn new(bus: RabbitMq, queue: Queue) -> Self {
        bus.consuming(); // So that readiness knows of it from now on.
        Self {
            bus,
            queue,
            consuming: None,
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(3)),
        }
    }

    pub(in super::super) async fn next_batch(&mut self, max: usize) -> Vec<Received> {
        loop {
            let Some(consuming) = &mut self.consuming else {
                self.consuming = self.start().await;
                continue;
            };
            let Some(Ok(first)) = consuming.consumer.next().await else {
                // The connection is lost, or the queue was deleted: start over.
                self.consuming = None;
                tokio::time::sleep(self.backoff.next_delay()).await;
                continue;
            };
            self.backoff.reset();
            let mut deliveries = vec![first];
            while deliveries.len() < max
                && let Some(Some(Ok(delivery))) = consuming.consumer.next().now_or_never()
            {
                deliveries.push(delivery);
            }
            let channel = Arc::clone(&consuming.channel);
            let batch: Vec<_> = deliveries
                .into_iter()
                .filter_map(|delivery| self.receive(delivery, &channel))
                .collect();
            if !batch.is_empty() {
                return batch;
            }
        }
    }

    /// None, after a pause, if the broker did not let it.
    async fn start(&mut self) -> Option<Consuming> {
        let Some(live) = self.bus.consuming().connection().await else {
            return std::future::pending().await; // The bus is closed.
        };
        let starting = async {
            let channel = live.channel().await?;
            self.bus.names().declare(&channel, self.queue).await?;
            channel
                .basic_qos(PREFETCH, BasicQosOptions::default())
                .await?;
            let consumer = channel
                .basic_consume(
                    self.bus.names().queue(self.queue.name).into(),
                    "".into(),
                    BasicConsumeOptions::default(),
                    FieldTable::default(),
                )
                .await?;
            Ok::<_, lapin::Error>(Consuming {
                consumer,
                channel: Arc::new(channel),
            })
        };
        let error = match tokio::time::timeout(ANSWER_TIMEOUT, starting).await {
            Ok(Ok(consuming)) => return Some(consuming),
            Ok(Err(error)) => error.to_string(),
            Err(_) => {
                live.give_up();
                "no answer in time".to_owned()
            }
        };
        if live.is_usable() {
            tracing::warn!(
                queue = self.queue.name,
                error,
                "cannot subscribe; trying again"
            );
        }
        tokio::time::sleep(self.backoff.next_delay()).await;
        None
    }

    /// The delivery as an event. What carries no event id is parked here, as no consumer could know it again.
    fn receive(&self, delivery: Delivery, channel: &Arc<Channel>) -> Option<Received> {
        let receipt = Receipt {
            acker: Some(delivery.acker),
            channel: Arc::clone(channel),
            bus: self.bus.clone(),
            queue: self.queue,
        };
        match wire::message(&delivery.properties, &delivery.routing_key, delivery.data) {
            Ok(message) => Some(Received {
                message,
                receipt: super::super::Receipt::RabbitMq(receipt),
            }),
            Err(message) => {
                let received = Received {
                    message,
                    receipt: super::super::Receipt::RabbitMq(receipt),
                };
                // In the background, so that its neighbours need not wait. Fails while the broker is
                // away; then it comes again.
                tokio::spawn(received.dead_letter("the property message_id is not a UUID"));
                None
            }
        }
    }
}

pub(in super::super) struct Receipt {
    /// Taken by the acknowledgement; still here in `drop`, the delivery goes back to the queue.
    acker: Option<Acker>,
    /// A delivery can be acknowledged only on its own channel, which closes with its last holder.
    channel: Arc<Channel>,
    bus: RabbitMq,
    queue: Queue,
}

impl Receipt {
    pub(in super::super) async fn ack(mut self) -> Result<(), BusError> {
        let acker = self.acker.take().ok_or(BusError::AckLost)?;
        let acking = acker.ack(BasicAckOptions::default());
        match tokio::time::timeout(ANSWER_TIMEOUT, acking).await {
            Ok(Ok(true)) => Ok(()),
            // `false` means that its channel is gone.
            Ok(Ok(false) | Err(_)) | Err(_) => Err(BusError::AckLost),
        }
    }

    pub(in super::super) async fn dead_letter(
        self,
        message: &Message,
        reason: &str,
    ) -> Result<(), BusError> {
        let queue = self.bus.names().queue(self.queue.dead_letter_queue);
        self.bus
            .park(message, &queue, reason)
            .await
            .map_err(BusError::NotParked)?;
        self.ack().await
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        let Some(acker) = self.acker.take().filter(Acker::usable) else {
            return;
        };
        // Outside a runtime the process is about to end, and the broker requeues by itself.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let channel = Arc::clone(&self.channel);
            runtime.spawn(async move {
                let requeue = BasicNackOptions {
                    requeue: true,
                    ..Default::default()
                };
                // Fails only with the channel, which requeues as well.
                let _ = acker.nack(requeue).await;
                drop(channel);
            });
        }
    }
}
