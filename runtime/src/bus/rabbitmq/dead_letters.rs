//! Parks in the dead-letter queue what can never be handled, beside the flow of the other events.

use std::time::Duration;

use futures::future::join_all;
use tokio::sync::mpsc;
use usher_proto::topology::Queue;

use super::super::{Message, PublishError, record_parked};
use super::RabbitMq;
use super::consumer::Receipt;
use crate::backoff::Backoff;

/// Most events that are parked in one send.
const BATCH: usize = 256;

/// An event that is to be parked.
pub(super) struct Rejected {
    pub(super) message: Message,
    pub(super) reason: String,
    /// Holds the event meanwhile: given back, the broker would deliver it again at once.
    pub(super) receipt: Receipt,
}

/// Parks what is rejected of `queue`, until nobody is left who could reject anything. What cannot be parked
/// waits, with all that comes after it, and stays unacknowledged: the broker sends no more than the prefetch.
pub(super) async fn run(
    bus: RabbitMq,
    queue: Queue,
    mut rejected: mpsc::UnboundedReceiver<Rejected>,
) {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
    let mut waiting = Vec::new();
    loop {
        if waiting.is_empty() && rejected.recv_many(&mut waiting, BATCH).await == 0 {
            return;
        }
        while waiting.len() < BATCH
            && let Ok(more) = rejected.try_recv()
        {
            waiting.push(more);
        }
        // What came over a connection that is lost by now comes again.
        waiting.retain(|rejected| rejected.receipt.is_usable());
        if waiting.is_empty() {
            continue;
        }
        match park(&bus, queue, &mut waiting).await {
            None => backoff.reset(),
            Some(error) => {
                let delay = backoff.next_delay();
                let (queue, count) = (queue.name, waiting.len());
                tracing::warn!(queue, count, %error, ?delay, "events cannot be parked; trying again");
                tokio::time::sleep(delay).await;
            }
        }
    }
}

/// Leaves in `waiting` what could not be parked, and says why.
async fn park(bus: &RabbitMq, queue: Queue, waiting: &mut Vec<Rejected>) -> Option<PublishError> {
    let batch: Vec<_> = waiting
        .iter()
        .map(|rejected| (&rejected.message, rejected.reason.as_str()))
        .collect();
    let results = bus.park(&batch, queue.dead_letter_queue).await;
    let mut failure = None;
    let mut parked = Vec::new();
    for (rejected, result) in std::mem::take(waiting).into_iter().zip(results) {
        match result {
            Ok(()) => {
                record_parked(&rejected.message, queue, &rejected.reason);
                parked.push(rejected.receipt.ack());
            }
            Err(error) => {
                failure = Some(error);
                waiting.push(rejected);
            }
        }
    }
    for result in join_all(parked).await {
        if let Err(error) = result {
            // It comes again, and is parked a second time.
            tracing::debug!(%error, "acknowledgement lost");
        }
    }
    failure
}
