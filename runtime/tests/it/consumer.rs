//! The consumer loop with a handler that fails in every way.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};
use std::time::Duration;

use sqlx::PgPool;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use usher_proto::topology::{NOTIFY_INVITATIONS, Queue, routing_key};
use usher_runtime::bus::{EventBus, Message};
use usher_runtime::consumer::{self, EventHandler};
use usher_tests::{Database, ServiceName};
use uuid::Uuid;

use super::support::{DEAD, event, events, publishing, receive_one, soon};

const TYPE: &str = routing_key::INVITATION_REQUESTED;

/// Remembers what it stored. The first byte of a body says what is wrong with the event.
struct Handler {
    pool: PgPool,
    stored: Mutex<Vec<Uuid>>,
    /// How often the database is "away" before it is back.
    outages: AtomicUsize,
    /// How often the database does not answer.
    silences: AtomicUsize,
}

const UNREADABLE: u8 = 1;
const VOID: u8 = 2;
const REFUSED: u8 = 3;

fn with(fault: u8) -> Message {
    Message {
        body: vec![fault],
        ..event(TYPE)
    }
}

fn take(counter: &AtomicUsize) -> bool {
    let less = |count: usize| count.checked_sub(1);
    counter
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
        .is_ok()
}

impl EventHandler for Handler {
    const QUEUE: Queue = NOTIFY_INVITATIONS;
    type Command = (Uuid, u8);

    fn decode(&self, message: &Message) -> Result<Option<(Uuid, u8)>, String> {
        match message.body[..] {
            [UNREADABLE] => Err("unreadable".to_owned()),
            [VOID] => Ok(None),
            [REFUSED] => Ok(Some((message.event_id, REFUSED))),
            _ => Ok(Some((message.event_id, 0))),
        }
    }

    async fn store(&self, commands: &[(Uuid, u8)]) -> Result<(), sqlx::Error> {
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
    let good = events(5, TYPE);
    let (unreadable, refused) = (with(UNREADABLE), with(REFUSED));
    let mut batch = good.clone();
    batch.insert(1, unreadable.clone());
    batch.insert(2, with(VOID));
    batch.insert(3, refused.clone());
    let results = soon("all is acknowledged", consumer.bus.publish(&batch)).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(consumer.stored(), ids(&good));

    let mut dead = consumer.bus.subscribe(DEAD);
    let mut parked = Vec::new();
    for _ in 0..2 {
        let received = receive_one(&mut dead).await;
        parked.push(received.message.event_id);
        received.ack().await.expect("ack");
    }
    parked.sort_unstable();
    let mut expected = ids(&[unreadable, refused]);
    expected.sort_unstable();
    assert_eq!(parked, expected);
    consumer.stop().await;
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_waits_for_a_database_that_is_away_and_parks_nothing() {
    let consumer = Consumer::start(no_pool(), 4, 0);
    let good = events(3, TYPE);
    let results = consumer.bus.publish(&good).await;
    assert_eq!(results, [Ok(()); 3]);
    assert_eq!(consumer.stored(), ids(&good));
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_does_not_answer_counts_as_away() {
    let consumer = Consumer::start(no_pool(), 0, 1);
    let good = events(1, TYPE);
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
    let publish = publishing(&bus, events(1, TYPE));
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
