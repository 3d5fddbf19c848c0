//! Receives what comes into one queue.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Acker, Channel, Consumer};
use tokio::sync::mpsc;
use usher_proto::topology::Queue;

use super::super::{BusError, MAX_EVENT_BYTES, Message, Receipt as AnyReceipt, Received};
use super::dead_letters::{self, Rejected};
use super::link::Live;
use super::{ANSWER_TIMEOUT, RabbitMq, wire};
use crate::backoff::Backoff;

/// Deliveries that one subscription may hold. Bounds memory (with [`MAX_EVENT_BYTES`], to 64 MiB), and what a
/// slow replica keeps from the others.
const PREFETCH: u16 = 256;

pub(in super::super) struct Subscription(mpsc::Receiver<Received>);

impl Subscription {
    pub(super) fn new(bus: RabbitMq, queue: Queue) -> Self {
        bus.consuming(); // So that readiness knows of it from now on.
        let (sender, receiver) = mpsc::channel(PREFETCH.into());
        let (rejects, rejected) = mpsc::unbounded_channel();
        tokio::spawn(dead_letters::run(bus.clone(), queue, rejected));
        let consumer = QueueConsumer {
            bus,
            queue,
            rejects,
        };
        tokio::spawn(async move {
            tokio::select! {
                () = consumer.run(&sender) => {}
                () = sender.closed() => {} // The subscription was dropped.
            }
        });
        Self(receiver)
    }

    pub(in super::super) async fn next_batch(&mut self, max: usize) -> Vec<Received> {
        loop {
            let mut batch = Vec::new();
            if self.0.recv_many(&mut batch, max.max(1)).await == 0 {
                std::future::pending::<()>().await; // The bus is closed.
            }
            // What came over a connection that is lost by now cannot be acknowledged, and comes again.
            batch.retain(Received::is_usable);
            if !batch.is_empty() {
                return batch;
            }
        }
    }
}

/// Subscribes to a queue, again and again, and passes on what it delivers.
struct QueueConsumer {
    bus: RabbitMq,
    queue: Queue,
    rejects: mpsc::UnboundedSender<Rejected>,
}

impl QueueConsumer {
    /// Ends when the bus is closed.
    async fn run(self, received: &mpsc::Sender<Received>) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(3));
        while let Some(live) = self.bus.consuming().connection().await {
            match self.start(&live).await {
                Ok((consumer, channel)) => {
                    backoff.reset();
                    self.bus.refusals().clear(self.queue.name);
                    tokio::select! {
                        () = self.pass_on(consumer, channel, received) => {}
                        () = live.lost() => {}
                    }
                }
                Err(error) if live.is_usable() => {
                    self.bus.refusals().note(self.queue.name, error);
                }
                Err(_) => {} // The link tells of it.
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    /// Ends when the queue is deleted, and as a rule when the connection is lost.
    async fn pass_on(
        &self,
        mut consumer: Consumer,
        channel: Arc<Channel>,
        received: &mpsc::Sender<Received>,
    ) {
        while let Some(Ok(delivery)) = consumer.next().await {
            if let Some(delivery) = self.receive(delivery, &channel)
                && received.send(delivery).await.is_err()
            {
                return;
            }
        }
    }

    async fn start(&self, live: &Live) -> Result<(Consumer, Arc<Channel>), String> {
        let starting = async {
            let channel = live.channel().await?;
            self.bus.names().declare(&channel, self.queue).await?;
            channel
                .basic_qos(PREFETCH, BasicQosOptions::default())
                .await?;
            let consumer = channel
                .basic_consume(
                    self.bus.names().queue(self.queue.name).into(),
                    "".into(), // The broker chooses a tag.
                    BasicConsumeOptions::default(),
                    FieldTable::default(),
                )
                .await?;
            Ok::<_, lapin::Error>((consumer, Arc::new(channel)))
        };
        if let Ok(started) = tokio::time::timeout(ANSWER_TIMEOUT, starting).await {
            return started.map_err(|error| error.to_string());
        }
        live.give_up();
        Err("no answer in time".to_owned())
    }

    /// The delivery as an event. Parked here is what carries no event id, as no consumer could know it again,
    /// and what is larger than an event may be, without its body.
    fn receive(&self, delivery: Delivery, channel: &Arc<Channel>) -> Option<Received> {
        let mut received = Received {
            dead_letter_reason: wire::dead_letter_reason(&delivery.properties),
            message: wire::message(&delivery.properties, &delivery.routing_key, delivery.data),
            receipt: AnyReceipt::RabbitMq(Receipt {
                acker: Some(delivery.acker),
                channel: Arc::clone(channel),
                rejects: self.rejects.clone(),
            }),
        };
        let bytes = received.message.body.len();
        if bytes > MAX_EVENT_BYTES {
            received.message.body = Vec::new();
            received.dead_letter(&format!(
                "the body has {bytes} bytes, more than the {MAX_EVENT_BYTES} of an event; it was left out"
            ));
            return None;
        }
        if received.message.event_id.is_nil() {
            received.dead_letter("the property message_id is not a UUID");
            return None;
        }
        Some(received)
    }
}

pub(in super::super) struct Receipt {
    /// Taken by the acknowledgement; still here in `drop`, the delivery goes back to the queue.
    acker: Option<Acker>,
    /// A delivery can be acknowledged only on its own channel, which closes with its last holder.
    channel: Arc<Channel>,
    rejects: mpsc::UnboundedSender<Rejected>,
}

impl Receipt {
    pub(in super::super) fn is_usable(&self) -> bool {
        self.acker.as_ref().is_some_and(Acker::usable)
    }

    pub(in super::super) async fn ack(mut self) -> Result<(), BusError> {
        let acker = self.acker.take().ok_or(BusError::AckLost)?;
        let acking = acker.ack(BasicAckOptions::default());
        match tokio::time::timeout(ANSWER_TIMEOUT, acking).await {
            Ok(Ok(true)) => Ok(()),
            // `false` means that its channel is gone.
            Ok(Ok(false) | Err(_)) | Err(_) => Err(BusError::AckLost),
        }
    }

    pub(in super::super) fn dead_letter(self, message: Message, reason: String) {
        let rejects = self.rejects.clone();
        // Fails only when the process ends; then it goes back to the queue.
        let _ = rejects.send(Rejected {
            message,
            reason,
            receipt: self,
        });
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
