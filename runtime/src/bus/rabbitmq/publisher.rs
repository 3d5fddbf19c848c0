//! Publishes batches on one channel in confirm mode.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Confirmation, PublisherConfirm};
use uuid::Uuid;

use super::super::PublishError;
use super::ANSWER_TIMEOUT;
use super::link::Live;
use super::refusals::Refusals;
use super::wire::{self, Names, Outgoing};

/// Messages that are sent ahead of their confirms. More gains little and makes outages more expensive.
const OUTSTANDING_CONFIRMS: usize = 500;

/// How long nothing but a failure makes the publisher declare the queues again. When one of them is deleted while
/// another queue takes its events too, nothing fails: the broker confirms what is lost to Usher.
const DECLARATION_LIFETIME: Duration = Duration::from_secs(15);

/// What is refused when the broker does not declare the topology.
const PUBLISHING: &str = "publishing";

/// A channel on which the topology was declared.
pub(super) struct Publisher {
    live: Arc<Live>,
    channel: Channel,
    declared: Instant,
}

impl Publisher {
    pub(super) async fn open(
        live: Arc<Live>,
        names: &Names,
        refusals: &Refusals,
    ) -> Result<Self, PublishError> {
        let opening = async {
            let channel = live.channel().await?;
            names.declare_all(&channel).await?;
            channel
                .confirm_select(ConfirmSelectOptions::default())
                .await?;
            Ok::<_, lapin::Error>(channel)
        };
        let declared = Instant::now();
        let opening = async { Ok(opening.await) };
        let channel = match answer(&live, opening).await? {
            Ok(channel) => channel,
            Err(error) if live.is_usable() => {
                refusals.note(PUBLISHING, error.to_string());
                return Err(PublishError::Undeclared);
            }
            Err(_) => return Err(PublishError::Disconnected),
        };
        refusals.clear(PUBLISHING);
        Ok(Self {
            live,
            channel,
            declared,
        })
    }

    /// Whether it can take another batch. If not, the next one starts on a fresh channel.
    pub(super) fn is_usable(&self) -> bool {
        self.live.is_usable()
            && self.channel.status().connected()
            && self.declared.elapsed() < DECLARATION_LIFETIME
    }

    pub(super) async fn send(&self, batch: &[Outgoing<'_>]) -> Vec<Result<(), PublishError>> {
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut unconfirmed = VecDeque::with_capacity(OUTSTANDING_CONFIRMS);
        let mut returned = HashSet::new();
        for outgoing in batch {
            if unconfirmed.len() == OUTSTANDING_CONFIRMS
                && let Some(sent) = unconfirmed.pop_front()
            {
                outcomes.push(self.confirm(sent, &mut returned).await);
            }
            unconfirmed.push_back(self.start(outgoing).await);
        }
        for sent in unconfirmed {
            outcomes.push(self.confirm(sent, &mut returned).await);
        }
        // The broker confirms what it could not route, after giving it back; and lapin hands a returned
        // message out with any confirm that comes after it. So only now, and only by id, is it known.
        let ids = batch.iter().map(|outgoing| outgoing.message.event_id);
        std::iter::zip(outcomes, ids)
            .map(|(outcome, id)| match outcome {
                Ok(()) if returned.contains(&id) => Err(PublishError::Unroutable),
                outcome => outcome,
            })
            .collect()
    }

    async fn start(&self, outgoing: &Outgoing<'_>) -> Result<PublisherConfirm, PublishError> {
        outgoing.message.check()?;
        let options = BasicPublishOptions {
            mandatory: outgoing.mandatory,
            ..Default::default()
        };
        let sending = self.channel.basic_publish(
            outgoing.exchange.into(),
            outgoing.routing_key.into(),
            options,
            &outgoing.message.body,
            outgoing.properties(),
        );
        answer(&self.live, sending).await
    }

    async fn confirm(
        &self,
        sent: Result<PublisherConfirm, PublishError>,
        returned: &mut HashSet<Uuid>,
    ) -> Result<(), PublishError> {
        let confirmation = answer(&self.live, sent?).await?;
        let acked = match &confirmation {
            Confirmation::Ack(_) => Ok(()),
            Confirmation::Nack(_) | Confirmation::NotRequested => Err(PublishError::Refused),
        };
        if let Some(message) = confirmation.take_message() {
            returned.extend(wire::event_id(&message.delivery.properties));
        }
        acked
    }
}

/// Waits for one answer of the broker, at most [`ANSWER_TIMEOUT`]; without it, the connection is given up,
/// which ends all other waits on it as well.
async fn answer<T>(
    live: &Live,
    waiting: impl Future<Output = lapin::Result<T>>,
) -> Result<T, PublishError> {
    tokio::select! {
        biased; // A timer is only made for an answer that is not there yet.
        answer = waiting => answer.map_err(|_| PublishError::Disconnected),
        () = live.lost() => Err(PublishError::Disconnected),
        () = tokio::time::sleep(ANSWER_TIMEOUT) => {
            live.give_up();
            Err(PublishError::Unconfirmed)
        }
    }
}
