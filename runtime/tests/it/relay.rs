//! The relay on a real outbox: what it may lose (nothing) and repeat (what was not deleted).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use secrecy::SecretString;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool, migrate::Migrator};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use usher_proto::topology::{NOTIFY_INVITATIONS, routing_key};
use usher_runtime::bus::{EventBus, MAX_EVENT_BYTES, Message};
use usher_runtime::database::{self, Scope};
use usher_runtime::outbox::{self, OutboxEvent};
use usher_runtime::relay::{Wake, run};
use usher_runtime::trace_context::TraceContext;
use usher_tests::{Database, ServiceName};
use uuid::Uuid;

use super::support::{TestBus, event, events, receive, receive_one, soon};

const TYPE: &str = routing_key::INVITATION_REQUESTED;
const DELIVERY: &str = routing_key::DELIVERY_CHANGED;

/// Both services have the same outbox, as a test of both says.
static MIGRATIONS: Migrator = sqlx::migrate!("../account-svc/migrations");

/// A database of one's own, with an outbox.
struct Outbox {
    database: Database,
    pool: PgPool,
}

impl Outbox {
    async fn empty() -> Self {
        let database = Database::migrated(ServiceName::Account, &MIGRATIONS).await;
        let database = database.expect("database");
        let url = SecretString::from(database.service_url());
        let pool = database::connect(&url, "account_service", 4).expect("pool");
        Self { database, pool }
    }

    async fn with(messages: &[Message]) -> Self {
        let outbox = Self::empty().await;
        outbox.insert(messages, TYPE).await;
        outbox
    }

    async fn insert(&self, messages: &[Message], event_type: &'static str) {
        let events = messages.iter().map(|message| OutboxEvent {
            event_id: message.event_id,
            organization_id: Uuid::nil(),
            event_type,
            payload: message.body.clone(),
            trace_context: message.trace_context.clone(),
        });
        let mut tx = self.begin().await;
        outbox::add(&mut tx, events.collect()).await.expect("add");
        tx.commit().await.expect("commit");
    }

    /// What a claim of up to `max_events` finds.
    async fn claim(&self, max_events: i64) -> Vec<Message> {
        let mut tx = self.begin().await;
        let batch = outbox::claim(&mut tx, max_events, i64::MAX).await;
        tx.rollback().await.expect("rollback");
        batch.expect("claim")
    }

    async fn put_off(&self, messages: &[Message]) {
        let mut tx = self.begin().await;
        let ids: Vec<_> = messages.iter().map(|message| message.event_id).collect();
        outbox::put_off(&mut tx, &ids).await.expect("put off");
        tx.commit().await.expect("commit");
    }

    async fn begin(&self) -> database::Tx {
        database::begin(&self.pool, Scope::Platform)
            .await
            .expect("begin")
    }

    async fn count(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM outbox")
            .fetch_one(&mut *self.begin().await)
            .await
            .expect("count")
    }

    async fn until_count(&self, expected: i64) {
        soon("the count of the outbox", async {
            while self.count().await != expected {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// Makes every `operation` on the outbox fail, and counts the attempts.
    async fn break_on(&self, operation: &str) {
        self.as_owner("CREATE SEQUENCE failures").await;
        self.as_owner(
            "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
             $$ BEGIN PERFORM nextval('failures'); RAISE EXCEPTION 'broken'; END $$",
        )
        .await;
        self.as_owner(&format!(
            "CREATE TRIGGER broken BEFORE {operation} ON outbox EXECUTE FUNCTION fail()"
        ))
        .await;
    }

    async fn until_failed(&self, times: i64) {
        let mut owner = self.owner().await;
        soon("failures", async {
            loop {
                let failures: i64 = sqlx::query_scalar(
                    "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM failures",
                )
                .fetch_one(&mut owner)
                .await
                .expect("count");
                if failures >= times {
                    return;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    async fn repair(&self) {
        self.as_owner("DROP TRIGGER broken ON outbox").await;
    }

    /// A connection of the owner of the tables.
    async fn owner(&self) -> PgConnection {
        PgConnection::connect(&self.database.owner_url())
            .await
            .expect("connect")
    }

    async fn as_owner(&self, statement: &str) {
        let mut owner = self.owner().await;
        let statement = format!("SET usher.scope = 'platform'; {statement}");
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut owner)
            .await
            .expect("statement");
        owner.close().await.expect("close");
    }

    fn relay(&self, bus: &EventBus) -> Running {
        let stop = CancellationToken::new();
        let wake = Wake::default();
        let task = tokio::spawn(run(
            self.pool.clone(),
            bus.clone(),
            wake.clone(),
            stop.clone(),
        ));
        Running { task, wake, stop }
    }

    async fn remove(self) {
        self.pool.close().await;
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
    let outbox = Outbox::with(&messages).await;
    let relay = outbox.relay(&test.bus);
    outbox.until_count(0).await;
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
    outbox.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_publish_and_delete_it_publishes_again() {
    for test in [TestBus::in_process(), TestBus::rabbitmq()] {
        let messages = events(40, TYPE);
        let outbox = Outbox::with(&messages).await;
        let counts = consume(&test.bus);
        // It "dies" when all is published: the delete fails as long as it lives.
        outbox.break_on("DELETE").await;
        let relay = outbox.relay(&test.bus);
        outbox.until_failed(1).await;
        relay.kill().await;
        outbox.repair().await;
        assert_eq!(outbox.count().await, 40, "nothing is lost");

        let relay = outbox.relay(&test.bus);
        outbox.until_count(0).await;
        // More often if the first one tried again before it died.
        soon("every event at least twice", async {
            while messages.iter().any(|message| {
                counts
                    .lock()
                    .expect("lock")
                    .get(&message.event_id)
                    .is_none_or(|count| *count < 2)
            }) {
                tokio::task::yield_now().await;
            }
        })
        .await;
        relay.stop().await;
        test.close().await;
        outbox.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deletes_nothing_that_is_not_confirmed() {
    let test = TestBus::in_process();
    drop(test.bus.subscribe(NOTIFY_INVITATIONS)); // A consumer that is gone: publishing fails at once.
    let messages = events(20, TYPE);
    let outbox = Outbox::with(&messages).await;
    let nobody_waits = event(routing_key::ACCOUNT_CREATED);
    outbox
        .insert(&[nobody_waits], routing_key::ACCOUNT_CREATED)
        .await;
    let relay = outbox.relay(&test.bus);
    // Only what was confirmed goes, whatever else is tried.
    outbox.until_count(20).await;

    let counts = consume(&test.bus);
    outbox.until_count(0).await;
    assert_eq!(counts.lock().expect("lock").len(), 20);
    relay.stop().await;
    test.close().await;
    outbox.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn survives_a_database_that_is_away() {
    let test = TestBus::in_process();
    let outbox = Outbox::empty().await;
    outbox.break_on("DELETE").await;
    let relay = outbox.relay(&test.bus);
    let counts = consume(&test.bus);
    outbox.insert(&[event(TYPE)], TYPE).await;
    outbox.until_failed(3).await;
    outbox.repair().await;
    outbox.until_count(0).await;
    assert_eq!(counts.lock().expect("lock").len(), 1);
    relay.stop().await;
    test.close().await;
    outbox.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_empties_the_outbox_first() {
    let test = TestBus::rabbitmq();
    soon("connected", test.bus.connected()).await;
    let outbox = Outbox::with(&events(4_200, TYPE)).await;
    let relay = outbox.relay(&test.bus);
    relay.stop().await;
    assert_eq!(outbox.count().await, 0);
    test.close().await;
    outbox.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_ends_also_while_the_broker_is_away() {
    let broker = super::support::Broker::new();
    let bus = broker.bus("amqp://127.0.0.1:1/%2f"); // Nobody listens on port 1.
    let outbox = Outbox::with(&events(3, TYPE)).await;
    let relay = outbox.relay(&bus);
    relay.stop().await;
    assert_eq!(outbox.count().await, 3);
    bus.close().await;
    outbox.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn is_woken_by_a_commit() {
    let test = TestBus::in_process();
    let outbox = Outbox::empty().await;
    let relay = outbox.relay(&test.bus);
    let mut subscription = test.bus.subscribe(NOTIFY_INVITATIONS);
    let started = Instant::now();
    for _ in 0..40 {
        outbox.insert(&[event(TYPE)], TYPE).await;
        relay.wake.notify();
        receive_one(&mut subscription)
            .await
            .ack()
            .await
            .expect("ack");
        outbox.until_count(0).await;
    }
    // By polling alone it would take 30 s or more.
    assert!(started.elapsed() < Duration::from_secs(15));
    relay.stop().await;
    test.close().await;
    outbox.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_is_bounded_by_events_and_by_bytes() {
    let messages: Vec<_> = (0..6)
        .map(|_| Message {
            body: vec![0; 1_000],
            ..event(TYPE)
        })
        .collect();
    let outbox = Outbox::with(&messages).await;
    // The third is the one that reaches 2,500 bytes; and one that is larger than the bound does not stop the
    // others for ever.
    for (max_events, max_bytes, expected) in [
        (100, 2_500, 0..3),
        (2, 1_000_000, 3..5),
        (100, 10, 5..6),
        (100, 10, 6..6),
    ] {
        let mut tx = outbox.begin().await;
        let batch = outbox::claim(&mut tx, max_events, max_bytes).await;
        let batch = batch.expect("claim");
        assert!(batch == messages[expected], "{} events", batch.len());
        let ids: Vec<_> = batch.iter().map(|message| message.event_id).collect();
        outbox::delete(&mut tx, &ids).await.expect("delete");
        tx.commit().await.expect("commit");
    }
    outbox.remove().await;
}

/// Whoever dies while it publishes, its connection ends: the others take its events at once, and no sooner.
#[tokio::test(flavor = "multi_thread")]
async fn another_relay_takes_the_events_of_one_that_died() {
    let test = TestBus::in_process();
    let messages = events(3, TYPE);
    let outbox = Outbox::with(&messages).await;
    // A relay that holds the first two.
    let pool = database::connect(
        &SecretString::from(outbox.database.service_url()),
        "account_service",
        1,
    )
    .expect("pool");
    let mut dying = database::begin(&pool, Scope::Platform)
        .await
        .expect("begin");
    let held = outbox::claim(&mut dying, 2, i64::MAX).await.expect("claim");
    assert_eq!(held, messages[..2]);
    let backend: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(&mut *dying)
        .await
        .expect("backend");

    let counts = consume(&test.bus);
    let relay = outbox.relay(&test.bus);
    outbox.until_count(2).await;
    assert!(
        !counts
            .lock()
            .expect("lock")
            .contains_key(&messages[0].event_id)
    );

    let mut admin = outbox.database.admin().await.expect("admin");
    sqlx::query("SELECT pg_terminate_backend($1)")
        .bind(backend)
        .execute(&mut admin)
        .await
        .expect("terminate");
    outbox.until_count(0).await;
    assert_eq!(counts.lock().expect("lock").len(), 3);
    drop(dying);
    pool.close().await;
    relay.stop().await;
    test.close().await;
    outbox.remove().await;
}

/// With a full outbox two transactions take turns; several relays too. Nobody publishes what another holds.
#[tokio::test(flavor = "multi_thread")]
async fn each_event_goes_out_once_whoever_claims() {
    let test = TestBus::rabbitmq();
    let messages = events(9_000, TYPE);
    let outbox = Outbox::with(&messages).await;
    let counts = consume(&test.bus);
    let relays = [outbox.relay(&test.bus), outbox.relay(&test.bus)];
    outbox.until_count(0).await;
    soon("every event", async {
        while counts.lock().expect("lock").len() < messages.len() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(
        counts
            .lock()
            .expect("lock")
            .values()
            .all(|&count| count == 1)
    );
    for relay in relays {
        relay.stop().await;
    }
    test.close().await;
    outbox.remove().await;
}

/// Otherwise events that are refused for long, being the oldest, would be claimed first for ever.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_off_waits_a_quarter_of_its_age_and_lets_others_pass() {
    let messages = events(3, TYPE);
    let outbox = Outbox::with(&messages).await;
    assert_eq!(outbox.claim(2).await, messages[..2]);
    outbox.put_off(&messages[..2]).await;
    assert_eq!(outbox.claim(2).await, messages[2..], "the others wait");
    soon("claimed again", async {
        while outbox.claim(2).await != messages[..2] {}
    })
    .await;

    for (age, seconds) in [("0 s", 1.0), ("100 s", 25.0), ("1 year", 60.0)] {
        outbox
            .as_owner(&format!(
                "UPDATE outbox SET create_time = now() - interval '{age}'"
            ))
            .await;
        outbox.put_off(&messages).await;
        let wait: f64 = sqlx::query_scalar(
            "SELECT extract(epoch FROM max(retry_time - now()))::float8 FROM outbox",
        )
        .fetch_one(&mut *outbox.begin().await)
        .await
        .expect("wait");
        assert!(
            (seconds - 1.0..=seconds + 1.0).contains(&wait),
            "{age}: {wait} s"
        );
    }
    outbox.remove().await;
}

/// More events than one claim takes wait for a queue that refuses them.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_refuses_stops_no_other() {
    let test = TestBus::rabbitmq();
    let broker = test.broker.as_ref().expect("RabbitMQ");
    soon("declared", async {
        while test.bus.publish(&[event(DELIVERY)]).await != [Ok(())] {}
    })
    .await;
    let (_connection, channel) = broker.raw().await;
    broker.refuse(&channel, TYPE).await;
    let outbox = Outbox::with(&events(4_500, TYPE)).await;
    let healthy = events(10, DELIVERY);
    outbox.insert(&healthy, DELIVERY).await;
    let relay = outbox.relay(&test.bus);
    outbox.until_count(4_500).await;
    relay.stop().await;
    test.close().await;
    outbox.remove().await;
}

/// It could never leave, and would be tried for ever.
#[tokio::test(flavor = "multi_thread")]
async fn the_outbox_takes_nothing_that_cannot_be_published() {
    let outbox = Outbox::empty().await;
    let sized = |bytes, event_type: &'static str| OutboxEvent {
        event_id: Uuid::now_v7(),
        organization_id: Uuid::nil(),
        event_type,
        payload: vec![0; bytes],
        trace_context: TraceContext(None),
    };
    let (longest, longer) = ("ü".repeat(127), "ü".repeat(128));
    for (event, fits) in [
        (sized(MAX_EVENT_BYTES, longest.leak()), true),
        (sized(MAX_EVENT_BYTES + 1, TYPE), false),
        (sized(1, longer.leak()), false),
    ] {
        let mut tx = outbox.begin().await;
        let added = outbox::add(&mut tx, vec![event]).await;
        assert_eq!(added.is_ok(), fits, "{added:?}");
        tx.rollback().await.expect("rollback");
    }
    outbox.remove().await;
}
