//! The consumer loop with a handler that fails in every way.

use std::collections::HashMap;
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};
use std::time::Duration;

use sqlx::PgPool;
use time::OffsetDateTime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use usher_proto::event::v1::{InvitationRevoked, event::Payload};
use usher_proto::topology::{NOTIFY_INVITATIONS, Queue, routing_key};
use usher_runtime::bus::{EventBus, Message};
use usher_runtime::consumer::{self, EventHandler};
use usher_runtime::event::ReceivedEvent;
use usher_runtime::outbox::OutboxEvent;
use usher_tests::{Database, ServiceName};
use uuid::Uuid;

use super::support::{DEAD, publishing, receive_one, soon};

const TYPE: &str = routing_key::INVITATION_REVOKED;

/// Remembers what it stored. The send number of a payload says what is wrong with the event.
struct Handler {
    pool: PgPool,
    stored: Mutex<Vec<Uuid>>,
    /// How often the database is "away" before it is back.
    outages: AtomicUsize,
    /// How often the database does not answer.
    silences: AtomicUsize,
}

const UNREADABLE: u32 = 1;
const VOID: u32 = 2;
const REFUSED: u32 = 3;
const PANICS: u32 = 4;

fn with(fault: u32) -> Message {
    let revoked = InvitationRevoked {
        send_number: fault,
        ..Default::default()
    };
    let payload = Payload::InvitationRevoked(revoked);
    let event = OutboxEvent::new(Uuid::nil(), TYPE, payload, OffsetDateTime::UNIX_EPOCH);
    Message {
        event_id: event.event_id,
        event_type: event.event_type.to_owned(),
        body: event.payload,
        trace_context: event.trace_context,
    }
}

fn events(count: usize) -> Vec<Message> {
    (0..count).map(|_| with(0)).collect()
}

fn take(counter: &AtomicUsize) -> bool {
    let less = |count: usize| count.checked_sub(1);
    counter
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
        .is_ok()
}

impl EventHandler for Handler {
    const QUEUE: Queue = NOTIFY_INVITATIONS;
    type Command = (Uuid, u32);

    fn decode(&self, event: ReceivedEvent) -> Result<Option<(Uuid, u32)>, String> {
        match event.payload {
            Payload::InvitationRevoked(revoked) => match revoked.send_number {
                UNREADABLE => Err("unreadable".to_owned()),
                VOID => Ok(None),
                PANICS => panic!("on purpose"),
                fault => Ok(Some((event.event_id, fault))),
            },
            other => Err(format!("{other:?}")),
        }
    }

    async fn store(&self, commands: &[(Uuid, u32)]) -> Result<(), sqlx::Error> {
        if take(&self.outages) {
            return Err(sqlx::Error::PoolTimedOut);
        }
        if take(&self.silences) {
            return std::future::pending().await;
        }
        if commands.iter().any(|(_, fault)| *fault == REFUSED) {
            // SQLSTATE 22012.
            sqlx::query("SELECT 1 / 0").execute(&self.pool).await?;
        }
        let mut stored = self.stored.lock().expect("lock");
        stored.extend(commands.iter().map(|(id, _)| *id));
        Ok(())
    }
}

/// A consumer of an in-process bus.
struct Consumer {
    handler: Arc<Handler>,
    bus: EventBus,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Consumer {
    fn start(pool: PgPool, outages: usize, silences: usize) -> Self {
        let handler = Arc::new(Handler {
            pool,
            stored: Mutex::default(),
            outages: AtomicUsize::new(outages),
            silences: AtomicUsize::new(silences),
        });
        let bus = EventBus::in_process();
        let stop = CancellationToken::new();
        let task = tokio::spawn({
            let (handler, bus, stop) = (Arc::clone(&handler), bus.clone(), stop.clone());
            consumer::run(handler, bus, stop)
        });
        Self {
            handler,
            bus,
            stop,
            task,
        }
    }

    fn stored(&self) -> Vec<Uuid> {
        let mut stored = self.handler.stored.lock().expect("lock").clone();
        stored.sort_unstable();
        stored
    }

    async fn stop(self) {
        self.stop.cancel();
        soon("the consumer's end", self.task)
            .await
            .expect("no panic");
        self.bus.close().await;
    }
}

/// A pool that nothing connects with.
fn no_pool() -> PgPool {
    PgPool::connect_lazy("postgres://nobody@127.0.0.1:1/none").expect("a URL")
}

fn ids(messages: &[Message]) -> Vec<Uuid> {
    messages.iter().map(|message| message.event_id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_handled_is_parked_and_its_neighbours_are_stored() {
    let database = Database::create(ServiceName::Account).await;
    let database = database.expect("database");
    let pool = PgPool::connect(&database.owner_url()).await.expect("pool");
    let consumer = Consumer::start(pool.clone(), 0, 0);
    let good = events(5);
    let (unreadable, refused, panics) = (with(UNREADABLE), with(REFUSED), with(PANICS));
    // The envelope is checked before the handler sees it.
    let other_id = Message {
        event_id: Uuid::now_v7(),
        ..with(0)
    };
    let mut batch = good.clone();
    batch.insert(1, unreadable.clone());
    batch.insert(2, with(VOID));
    batch.insert(3, refused.clone());
    batch.insert(4, other_id.clone());
    batch.insert(5, panics.clone());
    let results = soon("all is acknowledged", consumer.bus.publish(&batch)).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(consumer.stored(), ids(&good));

    let mut dead = consumer.bus.subscribe(DEAD);
    let mut parked = HashMap::new();
    for _ in 0..4 {
        let received = receive_one(&mut dead).await;
        let reason = received.dead_letter_reason.clone().expect("a reason");
        parked.insert(received.message.event_id, reason);
        received.ack().await.expect("ack");
    }
    let expected = [
        (unreadable, "unreadable"),
        (other_id, "event_id differs from the message id"),
        (panics, "decoding panicked"),
        (refused, "the database refuses it: SQLSTATE 22012 on - -"),
    ];
    let expected = expected.map(|(message, reason)| (message.event_id, reason.to_owned()));
    assert_eq!(parked, HashMap::from(expected));
    consumer.stop().await;
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_waits_for_a_database_that_is_away_and_parks_nothing() {
    let consumer = Consumer::start(no_pool(), 4, 0);
    let good = events(3);
    let results = consumer.bus.publish(&good).await;
    assert_eq!(results, [Ok(()); 3]);
    assert_eq!(consumer.stored(), ids(&good));
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_does_not_answer_counts_as_away() {
    let consumer = Consumer::start(no_pool(), 0, 1);
    let good = events(1);
    let publish = publishing(&consumer.bus, good.clone());
    soon("stored", async {
        while consumer.stored() != ids(&good) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    publish.abort();
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_stops_while_the_database_is_away_and_acknowledges_nothing() {
    let consumer = Consumer::start(no_pool(), usize::MAX, 0);
    let bus = consumer.bus.clone();
    let publish = publishing(&bus, events(1));
    soon("an attempt", async {
        while consumer.handler.outages.load(Ordering::Relaxed) == usize::MAX {
            tokio::task::yield_now().await;
        }
    })
    .await;
    consumer.stop().await;
    let results = soon("an answer", publish).await.expect("no panic");
    assert!(results[0].is_err(), "{results:?}");
}
