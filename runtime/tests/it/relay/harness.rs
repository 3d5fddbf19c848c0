//! An outbox of one's own, and relays on it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use secrecy::SecretString;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool, migrate::Migrator};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use usher_proto::topology::{NOTIFY_INVITATIONS, routing_key};
use usher_runtime::bus::{EventBus, Message};
use usher_runtime::database::{self, Scope};
use usher_runtime::outbox::{self, OutboxEvent};
use usher_runtime::{relay::run, wake::Wake};
use usher_tests::{Database, ServiceName};
use uuid::Uuid;

use crate::support::soon;

pub const TYPE: &str = routing_key::INVITATION_REQUESTED;
pub const DELIVERY: &str = routing_key::DELIVERY_CHANGED;

/// Both services have the same outbox, as a test of both says.
static MIGRATIONS: Migrator = sqlx::migrate!("../account-svc/migrations");

/// A database of one's own, with an outbox.
pub struct Outbox {
    pub database: Database,
    pool: PgPool,
}

impl Outbox {
    pub async fn empty() -> Self {
        let database = Database::migrated(ServiceName::Account, &MIGRATIONS).await;
        let database = database.expect("database");
        let url = SecretString::from(database.service_url());
        let pool = database::connect(&url, "account_service", 8).expect("pool");
        Self { database, pool }
    }

    pub async fn with(messages: &[Message]) -> Self {
        let outbox = Self::empty().await;
        outbox.insert(messages, TYPE).await;
        outbox
    }

    pub async fn insert(&self, messages: &[Message], event_type: &'static str) {
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
    pub async fn claim(&self, max_events: i64) -> Vec<Message> {
        let mut tx = self.begin().await;
        let batch = outbox::claim(&mut tx, max_events, i64::MAX).await;
        tx.rollback().await.expect("rollback");
        batch.expect("claim")
    }

    pub async fn put_off(&self, messages: &[Message]) {
        let mut tx = self.begin().await;
        let ids: Vec<_> = messages.iter().map(|message| message.event_id).collect();
        outbox::put_off(&mut tx, &ids).await.expect("put off");
        tx.commit().await.expect("commit");
    }

    pub async fn begin(&self) -> database::Tx {
        database::begin(&self.pool, Scope::Platform)
            .await
            .expect("begin")
    }

    pub async fn count(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM outbox")
            .fetch_one(&mut *self.begin().await)
            .await
            .expect("count")
    }

    pub async fn until_count(&self, expected: i64) {
        soon("the count of the outbox", async {
            while self.count().await != expected {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// Makes every `operation` on the outbox fail, and counts the attempts.
    pub async fn break_on(&self, operation: &str) {
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

    pub async fn until_failed(&self, times: i64) {
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

    pub async fn repair(&self) {
        self.as_owner("DROP TRIGGER broken ON outbox").await;
    }

    /// A connection of the owner of the tables.
    pub async fn owner(&self) -> PgConnection {
        PgConnection::connect(&self.database.owner_url())
            .await
            .expect("connect")
    }

    pub async fn as_owner(&self, statement: &str) {
        let mut owner = self.owner().await;
        let statement = format!("SET usher.scope = 'platform'; {statement}");
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut owner)
            .await
            .expect("statement");
        owner.close().await.expect("close");
    }

    pub fn relay(&self, bus: &EventBus) -> Running {
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

    pub async fn remove(self) {
        self.pool.close().await;
    }
}

pub struct Running {
    task: JoinHandle<()>,
    pub wake: Wake,
    stop: CancellationToken,
}

impl Running {
    pub async fn stop(self) {
        self.stop.cancel();
        soon("the relay's end", self.task).await.expect("no panic");
    }

    pub async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.expect_err("killed").is_cancelled());
    }
}

/// How often each event came.
pub struct Counts(Arc<Mutex<HashMap<Uuid, usize>>>);

impl Counts {
    pub fn now(&self) -> HashMap<Uuid, usize> {
        self.0.lock().expect("lock").clone()
    }

    pub async fn until(&self, what: &str, condition: impl Fn(&HashMap<Uuid, usize>) -> bool) {
        soon(what, async {
            while !condition(&self.0.lock().expect("lock")) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

/// Acknowledges everything and counts it.
pub fn consume(bus: &EventBus) -> Counts {
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
    Counts(counts)
}
