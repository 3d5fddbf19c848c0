//! Transactions and pools against a real PostgreSQL, also across a network that swallows packets. Needs
//! `DATABASE_URL`.

use std::time::{Duration, Instant};

use secrecy::SecretString;
use sqlx::{AssertSqlSafe, PgPool, migrate::Migrator};
use usher_runtime::database::{Scope, Tx, begin, connect, is_outage, migrate, within};
use usher_tests::{Database, ServiceName, proxy::Proxy};

use crate::support::{database, soon};

static ACCOUNT_MIGRATIONS: Migrator = sqlx::migrate!("../account-svc/migrations");
static NOTIFY_MIGRATIONS: Migrator = sqlx::migrate!("../notify-svc/migrations");

fn pool(url: &str, max_connections: u32) -> PgPool {
    connect(&url.into(), ServiceName::Account.role(), max_connections).expect("DATABASE_URL")
}

async fn wait_for(tx: &mut Tx, statement: &'static str) -> Result<(), sqlx::Error> {
    sqlx::query(statement).execute(&mut **tx).await.map(|_| ())
}

/// What the next user of the pool finds on a connection.
async fn scope_outside_a_transaction(pool: &PgPool) -> Option<String> {
    sqlx::query_scalar("SELECT nullif(current_setting('usher.scope', true), '')")
        .fetch_one(pool)
        .await
        .expect("the pool works")
}

#[tokio::test]
async fn a_transaction_that_is_dropped_at_any_moment_leaves_nothing_behind() {
    let database = database().await;
    let pool = pool(&database.service_url(), 1);
    drop(begin(&pool, Scope::Platform).await.expect("begin"));
    for micros in (0..2_000).step_by(20) {
        let used = within(Duration::from_micros(micros), async {
            let mut tx = begin(&pool, Scope::Platform).await?;
            wait_for(&mut tx, "SELECT 1").await?;
            tx.commit().await
        });
        if let Err(error) = used.await {
            assert!(is_outage(&error), "{error}");
        }
        assert_eq!(scope_outside_a_transaction(&pool).await, None, "{micros}");
    }
}

#[tokio::test]
async fn a_transaction_without_a_commit_is_rolled_back() {
    let database = Database::migrated(ServiceName::Account, &ACCOUNT_MIGRATIONS).await;
    let database = database.expect("database");
    let pool = pool(&database.service_url(), 1);
    let count = async || {
        let mut tx = begin(&pool, Scope::Platform).await.expect("begin");
        let count = sqlx::query_scalar("SELECT count(*) FROM outbox");
        let count: i64 = count.fetch_one(&mut *tx).await.expect("count");
        tx.rollback().await.expect("rollback");
        count
    };
    for (commits, expected) in [(false, 0), (true, 1)] {
        let mut tx = begin(&pool, Scope::Platform).await.expect("begin");
        let insert = "INSERT INTO outbox (event_id, organization_id, event_type, payload)
            VALUES (gen_random_uuid(), gen_random_uuid(), 'test', '')";
        wait_for(&mut tx, insert).await.expect("insert");
        if commits {
            tx.commit().await.expect("commit");
        } else {
            drop(tx);
        }
        assert_eq!(count().await, expected);
    }
}

/// Who has stolen the login could otherwise stop the service, or take its guards away, until somebody looks there.
#[tokio::test]
async fn settings_of_the_login_do_not_count() {
    let database = Database::migrated(ServiceName::Account, &ACCOUNT_MIGRATIONS).await;
    let database = database.expect("database");
    let mut login = database.stolen_login().await.expect("login");
    for setting in [
        "default_transaction_read_only = on",
        "default_transaction_isolation = 'serializable'",
        "default_transaction_deferrable = on",
        "synchronous_commit = off",
        "search_path = pg_catalog",
        "row_security = off",
        "idle_session_timeout = '1ms'",
        "statement_timeout = '1ms'",
    ] {
        let statement = format!(
            "DO $$ BEGIN EXECUTE format('ALTER ROLE CURRENT_USER IN DATABASE %I SET {}', current_database()); END $$",
            setting.replace('\'', "''")
        );
        let set = sqlx::raw_sql(AssertSqlSafe(statement));
        set.execute(&mut login).await.expect(setting);
    }
    let pool = pool(&database.service_url(), 1);
    let mut tx = begin(&pool, Scope::Platform).await.expect("begin");
    let insert = "INSERT INTO outbox (event_id, organization_id, event_type, payload)
        VALUES (gen_random_uuid(), gen_random_uuid(), 'test', '')";
    wait_for(&mut tx, insert).await.expect("insert");
    tx.commit().await.expect("commit");
    let mut tx = begin(&pool, Scope::Platform).await.expect("begin");
    for (name, expected) in [
        ("transaction_isolation", "read committed"),
        ("transaction_deferrable", "off"),
        ("synchronous_commit", "on"),
        ("row_security", "on"),
        ("idle_session_timeout", "0"),
        ("statement_timeout", "30s"),
    ] {
        let value: String = sqlx::query_scalar("SELECT current_setting($1)")
            .bind(name)
            .fetch_one(&mut *tx)
            .await
            .expect(name);
        assert_eq!(value, expected, "{name}");
    }
}

#[tokio::test]
async fn connections_that_died_silently_cost_one_call_a_moment() {
    let database = database().await;
    let proxy = Proxy::in_front_of(&database.service_url()).await;
    let proxy = proxy.expect("proxy");
    let pool = pool(proxy.url(), 4);
    let mut used = Vec::new();
    for _ in 0..4 {
        used.push(begin(&pool, Scope::Platform).await.expect("begin"));
    }
    drop(used);
    soon("all are idle", async {
        while pool.num_idle() < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;

    proxy.silence();
    for limit in [Duration::from_secs(4), Duration::from_secs(1)] {
        let started = Instant::now();
        let tx = begin(&pool, Scope::Platform).await.expect("begin");
        tx.commit().await.expect("commit");
        assert!(started.elapsed() < limit, "{:?}", started.elapsed());
    }
}

#[tokio::test]
async fn connections_that_die_in_a_transaction_free_their_places() {
    let database = database().await;
    let proxy = Proxy::in_front_of(&database.service_url()).await;
    let proxy = proxy.expect("proxy");
    let pool = pool(proxy.url(), 2);
    let mut open = Vec::new();
    for _ in 0..2 {
        open.push(begin(&pool, Scope::Platform).await.expect("begin"));
    }
    proxy.silence();
    for mut tx in open {
        let statement = wait_for(&mut tx, "SELECT 1");
        let error = within(Duration::from_millis(100), statement)
            .await
            .expect_err("no answer can come");
        assert!(is_outage(&error), "{error}");
    }
    let started = Instant::now();
    let again = begin(&pool, Scope::Platform).await.expect("begin");
    again.commit().await.expect("commit");
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn a_restart_of_the_database_costs_no_call() {
    let database = database().await;
    let proxy = Proxy::in_front_of(&database.service_url()).await;
    let proxy = proxy.expect("proxy");
    let pool = pool(proxy.url(), 4);
    for _ in 0..4 {
        let tx = begin(&pool, Scope::Platform).await.expect("begin");
        tx.commit().await.expect("commit");
        proxy.cut();
    }
}

#[tokio::test]
async fn a_lock_is_not_waited_for_without_end() {
    let database = database().await;
    let pool = pool(&database.service_url(), 2);
    let lock = "SELECT pg_advisory_xact_lock(7205759403792794)";
    let mut holder = begin(&pool, Scope::Platform).await.expect("begin");
    wait_for(&mut holder, lock).await.expect("free");
    let mut waiter = begin(&pool, Scope::Platform).await.expect("begin");
    let started = Instant::now();
    let error = soon("the wait ends", wait_for(&mut waiter, lock))
        .await
        .expect_err("it is taken");
    assert!(is_outage(&error), "{error}");
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
}

/// As after a process that stood still in the middle of a call.
#[tokio::test]
async fn a_transaction_that_was_idle_for_too_long_is_an_outage() {
    let database = database().await;
    let pool = pool(&database.service_url(), 1);
    let mut tx = begin(&pool, Scope::Platform).await.expect("begin");
    let process: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(&mut *tx)
        .await
        .expect("process");
    wait_for(
        &mut tx,
        "SET LOCAL idle_in_transaction_session_timeout = '10ms'",
    )
    .await
    .expect("set");
    let mut admin = database.admin().await.expect("admin");
    soon("the server ends it", async {
        loop {
            let processes: Vec<i32> = sqlx::query_scalar("SELECT pid FROM pg_stat_activity")
                .fetch_all(&mut admin)
                .await
                .expect("processes");
            if !processes.contains(&process) {
                return;
            }
        }
    })
    .await;
    let error = wait_for(&mut tx, "SELECT 1").await.unwrap_err();
    assert!(is_outage(&error), "{error}");
}

#[tokio::test]
async fn the_database_of_another_service_is_not_migrated() {
    let database = Database::migrated(ServiceName::Account, &ACCOUNT_MIGRATIONS).await;
    let database = database.expect("database");
    let url = SecretString::from(database.owner_url());
    let error = migrate(&url, &NOTIFY_MIGRATIONS)
        .await
        .expect_err("refused");
    assert_eq!(
        error.to_string(),
        "DATABASE_URL: this is another service's database; its migration 1 is `accounts`"
    );
    migrate(&url, &ACCOUNT_MIGRATIONS).await.expect("its own");
}
