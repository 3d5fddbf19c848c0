//! What notify-svc publishes of its emails.

use std::sync::{Arc, Mutex, PoisonError};

use prost::Message as _;
use usher_proto::{
    event::v1::{DeliveryState, Event, event::Payload},
    topology::ACCOUNT_DELIVERIES,
};
use usher_runtime::bus::EventBus;
use uuid::Uuid;

/// A change that was published.
#[derive(Debug, Clone)]
pub struct Change {
    /// Events come more than once.
    pub event_id: Uuid,
    pub delivery_id: String,
    pub revision: u64,
    pub state: DeliveryState,
}

impl Change {
    pub fn is_final(&self) -> bool {
        !matches!(
            self.state,
            DeliveryState::Queued | DeliveryState::Throttled | DeliveryState::Unknown
        )
    }
}

/// All changes of a bus, from now on.
#[derive(Clone, Default)]
pub struct Changes(Arc<Mutex<Vec<Change>>>);

impl Changes {
    /// Receives in the background.
    pub fn receive(bus: &EventBus) -> Self {
        let changes = Self::default();
        let (all, mut subscription) = (changes.clone(), bus.subscribe(ACCOUNT_DELIVERIES));
        tokio::spawn(async move {
            loop {
                for received in subscription.next_batch(1_000).await {
                    let message = &received.message;
                    if let Ok(event) = Event::decode(message.body.as_slice())
                        && let Some(Payload::DeliveryChanged(change)) = event.payload
                    {
                        all.lock().push(Change {
                            event_id: message.event_id,
                            state: change.state(),
                            delivery_id: change.delivery_id,
                            revision: change.revision,
                        });
                    }
                    // What is not acknowledged comes again.
                    let _ = received.ack().await;
                }
            }
        });
        changes
    }

    pub fn all(&self) -> Vec<Change> {
        self.lock().clone()
    }

    pub fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Change>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
