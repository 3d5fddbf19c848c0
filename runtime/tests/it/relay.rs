//! The relay against an outbox in memory: what it may lose (nothing) and repeat (what was not deleted).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use usher_proto::topology::{NOTIFY_INVITATIONS, routing_key};
use usher_runtime::bus::{EventBus, Message};
use usher_runtime::relay::{OutboxStore, Wake, run};
use uuid::Uuid;

use super::support::{TestBus, event, events, receive, receive_one, soon};

const TYPE: &str = routing_key::INVITATION_REQUESTED;

/// An outbox table in memory.
#[derive(Clone, Default)]
struct Outbox(Arc<Inner>);

#[derive(Default)]
struct Inner {
    rows: Mutex<BTreeMap<Uuid, Row>>,
    /// Number of rows, and of releases so far.
    changes: watch::Sender<(usize, usize)>,
    /// While set, `delete` never returns: the process "dies" there.
    hang_in_delete: watch::Sender<bool>,
    /// While set, every call fails.
    broken: watch::Sender<bool>,
    /// Calls that failed so far.
    failures: watch::Sender<usize>,
}

struct Row {
    message: Message,
    leased: bool,
}

impl Outbox {
    fn with(messages: &[Message]) -> Self {
        let outbox = Self::default();
        for message in messages {
            outbox.insert(message.clone());
        }
        outbox
    }

    fn insert(&self, message: Message) {
        let row = Row {
            message,
            leased: false,
        };
        let mut rows = self.0.rows.lock().expect("lock");
        rows.insert(row.message.event_id, row);
        self.0.changes.send_modify(|(count, _)| *count = rows.len());
    }

    fn expire_leases(&self) {
        for row in self.0.rows.lock().expect("lock").values_mut() {
            row.leased = false;
        }
    }

    fn count(&self) -> usize {
        self.0.rows.lock().expect("lock").len()
    }

    async fn until_empty(&self) {
        let mut changes = self.0.changes.subscribe();
        let empty = changes.wait_for(|(rows, _)| *rows == 0);
        soon("an empty outbox", empty).await.expect("open");
    }

    async fn until_released(&self, times: usize) {
        let mut changes = self.0.changes.subscribe();
        let released = changes.wait_for(|(_, releases)| *releases >= times);
        soon("released events", released).await.expect("open");
    }

    fn check(&self) -> Result<(), sqlx::Error> {
        if *self.0.broken.borrow() {
            self.0.failures.send_modify(|failures| *failures += 1);
            return Err(sqlx::Error::PoolTimedOut);
        }
        Ok(())
    }

    fn relay(&self, bus: &EventBus) -> Running {
        let stop = CancellationToken::new();
        let wake = Wake::default();
        let task = tokio::spawn(run(self.clone(), bus.clone(), wake.clone(), stop.clone()));
        Running { task, wake, stop }
    }
}

impl OutboxStore for Outbox {
    async fn claim(&self, limit: i64) -> Result<Vec<Message>, sqlx::Error> {
        self.check()?;
        let mut rows = self.0.rows.lock().expect("lock");
        let free = rows.values_mut().filter(|row| !row.leased);
        let claimed = free.take(usize::try_from(limit).expect("positive"));
        Ok(claimed
            .map(|row| {
                row.leased = true;
                row.message.clone()
            })
            .collect())
    }

    async fn delete(&self, event_ids: &[Uuid]) -> Result<(), sqlx::Error> {
        if *self.0.hang_in_delete.borrow() {
            self.0.hang_in_delete.send_replace(false);
            std::future::pending::<()>().await;
        }
        self.check()?;
        let mut rows = self.0.rows.lock().expect("lock");
        for id in event_ids {
            assert!(
                rows.remove(id).expect("a row").leased,
                "deleted without lease"
            );
        }
        self.0.changes.send_modify(|(count, _)| *count = rows.len());
        Ok(())
    }

    async fn release(&self, event_ids: &[Uuid]) -> Result<(), sqlx::Error> {
        self.check()?;
        let mut rows = self.0.rows.lock().expect("lock");
        for id in event_ids {
            rows.get_mut(id).expect("a row").leased = false;
        }
        self.0.changes.send_modify(|(_, releases)| *releases += 1);
        Ok(())
    }
}

struct Running {
    task: JoinHandle<()>,
    wake: Wake,
    stop: CancellationToken,
}

impl Running {
    async fn stop(self) {
        self.stop.cancel();
        soon("the relay's end", self.task).await.expect("no panic");
    }

    async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.expect_err("killed").is_cancelled());
    }
}

/// Acknowledges everything and counts how often each event came.
fn consume(bus: &EventBus) -> Arc<Mutex<HashMap<Uuid, usize>>> {
    let counts = Arc::<Mutex<HashMap<Uuid, usize>>>::default();
    let mut subscription = bus.subscribe(NOTIFY_INVITATIONS);
    let counting = Arc::clone(&counts);
    tokio::spawn(async move {
        loop {
            for received in subscription.next_batch(100).await {
                let id = received.message.event_id;
                *counting.lock().expect("lock").entry(id).or_default() += 1;
                let _ = received.ack().await;
            }
        }
    });
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_more_than_a_batch() {
    let test = TestBus::rabbitmq();
    let messages = events(4_700, TYPE);
    let outbox = Outbox::with(&messages);
    let relay = outbox.relay(&test.bus);
    outbox.until_empty().await;
    let mut subscription = test.bus.subscribe(NOTIFY_INVITATIONS);
    let mut received = 0;
    while received < messages.len() {
        for delivery in receive(&mut subscription, 200).await {
            received += 1;
            delivery.ack().await.expect("ack");
        }
    }
    relay.stop().await;
    test.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_publish_and_delete_it_publishes_again() {
    for test in [TestBus::in_process(), TestBus::rabbitmq()] {
        let messages = events(40, TYPE);
        let outbox = Outbox::with(&messages);
        let counts = consume(&test.bus);
        let mut hanging = outbox.0.hang_in_delete.subscribe();
        outbox.0.hang_in_delete.send_replace(true);
        let relay = outbox.relay(&test.bus);
        let reached = hanging.wait_for(|hang| !hang);
        drop(soon("the delete", reached).await.expect("open"));
        relay.kill().await;
        assert_eq!(outbox.count(), 40, "nothing is lost");

        outbox.expire_leases();
        let relay = outbox.relay(&test.bus);
        outbox.until_empty().await;
        soon("every event twice", async {
            while messages
                .iter()
                .any(|message| counts.lock().expect("lock").get(&message.event_id) != Some(&2))
            {
                tokio::task::yield_now().await;
            }
        })
        .await;
        relay.stop().await;
        test.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deletes_nothing_that_is_not_confirmed() {
    let test = TestBus::in_process();
    drop(test.bus.subscribe(NOTIFY_INVITATIONS)); // A consumer that is gone: publishing fails at once.
    let messages = events(20, TYPE);
    let outbox = Outbox::with(&messages);
    let nobody_waits = event(routing_key::ACCOUNT_CREATED);
    outbox.insert(nobody_waits.clone());
    let relay = outbox.relay(&test.bus);
    outbox.until_released(3).await;
    assert_eq!(outbox.count(), 20, "only what was confirmed is gone");

    let counts = consume(&test.bus);
    outbox.until_empty().await;
    assert_eq!(counts.lock().expect("lock").len(), 20);
    relay.stop().await;
    test.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn survives_a_database_that_is_away() {
    let test = TestBus::in_process();
    let outbox = Outbox::default();
    outbox.0.broken.send_replace(true);
    let relay = outbox.relay(&test.bus);
    let counts = consume(&test.bus);
    outbox.insert(event(TYPE));
    let mut failures = outbox.0.failures.subscribe();
    let failed = failures.wait_for(|failures| *failures >= 3);
    drop(soon("failures", failed).await.expect("open"));
    outbox.0.broken.send_replace(false);
    outbox.until_empty().await;
    assert_eq!(counts.lock().expect("lock").len(), 1);
    relay.stop().await;
    test.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_empties_the_outbox_first() {
    let test = TestBus::rabbitmq();
    soon("connected", test.bus.connected()).await;
    let outbox = Outbox::with(&events(4_200, TYPE));
    let relay = outbox.relay(&test.bus);
    relay.stop().await;
    assert_eq!(outbox.count(), 0);
    test.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_ends_also_while_the_broker_is_away() {
    let broker = super::support::Broker::new();
    let bus = broker.bus("amqp://127.0.0.1:1/%2f"); // Nobody listens on port 1.
    let outbox = Outbox::with(&events(3, TYPE));
    let relay = outbox.relay(&bus);
    relay.stop().await;
    assert_eq!(outbox.count(), 3);
    bus.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn is_woken_by_a_commit() {
    let test = TestBus::in_process();
    let outbox = Outbox::default();
    let relay = outbox.relay(&test.bus);
    let mut subscription = test.bus.subscribe(NOTIFY_INVITATIONS);
    let started = Instant::now();
    for _ in 0..40 {
        outbox.insert(event(TYPE));
        relay.wake.notify();
        receive_one(&mut subscription)
            .await
            .ack()
            .await
            .expect("ack");
        outbox.until_empty().await;
    }
    // By polling alone it would take 30 s or more.
    assert!(started.elapsed() < Duration::from_secs(15));
    relay.stop().await;
    test.close().await;
}
