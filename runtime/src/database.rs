//! How a service reaches its PostgreSQL: as a role that owns nothing, and in transactions that say whose
//! rows they may see.

mod shares;
mod transaction;

use std::{str::FromStr as _, time::Duration};

use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{
    Connection as _, PgConnection, PgPool,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use uuid::Uuid;

pub use self::shares::Place;
pub(crate) use self::shares::Shares;
pub use self::transaction::{Tx, begin};

/// Longest that a call or a worker waits for a connection, a new one included.
const ACQUIRE_LIMIT: Duration = Duration::from_secs(5);

/// A service's connections, in two pools: many calls at a time do not stop the workers, nor the other way
/// round.
#[derive(Debug, Clone)]
pub struct Pools {
    /// For calls.
    pub calls: PgPool,
    /// For what runs in the background: the relay, consumers, housekeeping.
    pub workers: PgPool,
}

impl Pools {
    /// Makes both pools, each as [`connect`] does.
    ///
    /// # Errors
    /// If `url` is not a PostgreSQL URL.
    pub fn connect(
        url: &SecretString,
        role: &str,
        max_calls: u32,
        max_workers: u32,
    ) -> Result<Self, sqlx::Error> {
        Ok(Self {
            calls: connect(url, role, max_calls)?,
            workers: connect(url, role, max_workers)?,
        })
    }

    /// Closes all connections; those that are in use when they come back, which is waited for.
    pub async fn close(&self) {
        tokio::join!(self.calls.close(), self.workers.close());
    }
}

/// Whose rows a transaction may see. Row-level security enforces it in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Rows of this organization.
    Organization(Uuid),
    /// Rows of every organization: for what belongs to none (tokens, Persons, the outbox).
    Platform,
}

/// Makes a pool for `url` that connects on first use, so that a service starts, and says that it is not
/// ready, while its database is away.
///
/// Every connection takes on `role`, which must be granted to the login in `url`.
///
/// # Errors
/// If `url` is not a PostgreSQL URL.
pub fn connect(
    url: &SecretString,
    role: &str,
    max_connections: u32,
) -> Result<PgPool, sqlx::Error> {
    let options = PgConnectOptions::from_str(url.expose_secret())?
        .application_name(role)
        .options([
            ("role", role),
            // The database should not go on for much longer than a call waits for it.
            ("statement_timeout", "30s"),
            // Shorter than a call waits for a connection: when all of them wait for locks, one is free in time.
            ("lock_timeout", "3s"),
            ("idle_in_transaction_session_timeout", "60s"),
            // What a client left behind that vanished, or closed its connection during a statement, ends soon.
            ("client_connection_check_interval", "2s"),
            // The login may change its own settings (ALTER ROLE); what is said here counts more.
            ("idle_session_timeout", "0"),
            ("default_transaction_read_only", "off"),
            ("default_transaction_isolation", "read committed"),
            ("default_transaction_deferrable", "off"),
            ("synchronous_commit", "on"),
            ("search_path", "public"),
            // Statements are prepared once. A plan for each set of parameters cost more than it saved: 1.2 ms in a
            // duplicate check. Nor is any statement of a call long enough to be worth compiling.
            ("plan_cache_mode", "force_generic_plan"),
            ("jit", "off"),
            ("row_security", "on"),
            ("tcp_user_timeout", "20s"),
            ("tcp_keepalives_idle", "30"),
            ("tcp_keepalives_interval", "10"),
            ("tcp_keepalives_count", "3"),
        ]);
    Ok(PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(ACQUIRE_LIMIT)
        // `begin` finds out by itself, without a round trip of its own.
        .test_before_acquire(false)
        .connect_lazy_with(options))
}

/// Runs something that uses the database, for at most `limit`.
///
/// For everything that is no call (a call has its deadline already): on a network that swallows packets a
/// statement has no end of its own. The transaction in which it was is rolled back, or its connection closed.
/// ```
/// # use std::time::Duration;
/// # use usher_runtime::database::{Scope, begin, within};
/// # async fn purge(pool: &sqlx::PgPool) -> Result<(), sqlx::Error> {
/// within(Duration::from_secs(30), async {
///     let mut tx = begin(pool, Scope::Platform).await?;
///     sqlx::query("DELETE FROM inbox").execute(&mut *tx).await?;
///     tx.commit().await
/// })
/// .await
/// # }
/// ```
///
/// # Errors
/// Those of `work`; after `limit`, [`sqlx::Error::Io`] of the kind `TimedOut`: what was being committed then
/// may have been committed.
pub async fn within<T, E: From<sqlx::Error>>(
    limit: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    tokio::time::timeout(limit, work)
        .await
        .unwrap_or_else(|_| Err(transaction::timed_out().into()))
}

/// Brings a database up to date, as whoever `url` logs in.
///
/// # Errors
/// If the database is away, belongs to another service, or a migration fails.
pub async fn migrate(url: &SecretString, migrations: &Migrator) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(url.expose_secret())
        .await
        .context("DATABASE_URL: the database cannot be reached")?;
    ensure_own(&mut connection, migrations).await?;
    migrations.run(&mut connection).await?;
    connection.close().await?;
    tracing::info!("the database is up to date");
    Ok(())
}

/// Refuses a database that the migrations of another service made: all services count theirs from 1.
async fn ensure_own(connection: &mut PgConnection, migrations: &Migrator) -> anyhow::Result<()> {
    let has_migrations: bool =
        sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
            .fetch_one(&mut *connection)
            .await?;
    if !has_migrations {
        return Ok(());
    }
    let applied: Vec<(i64, String)> =
        sqlx::query_as("SELECT version, description FROM _sqlx_migrations")
            .fetch_all(&mut *connection)
            .await?;
    for (version, description) in applied {
        let own = migrations.iter().find(|own| own.version == version);
        anyhow::ensure!(
            own.is_none_or(|own| own.description == description),
            "DATABASE_URL: this is another service's database; its migration {version} is `{description}`"
        );
    }
    Ok(())
}

/// Whether the same call may succeed later: the database is away or at its limits, or another transaction
/// was in the way for too long.
#[must_use]
pub fn is_outage(error: &sqlx::Error) -> bool {
    use sqlx::Error as Sql;
    match error {
        Sql::Io(_) | Sql::Tls(_) | Sql::PoolTimedOut | Sql::PoolClosed | Sql::BeginFailed => true,
        // PostgreSQL, appendix A. Classes: 08 connection, 40 transaction rollback (deadlocks), 53 resources,
        // 57 operator intervention (timeouts too). 25P03: `idle_in_transaction_session_timeout`, after this process
        // stood still. 55P03: `lock_timeout`.
        Sql::Database(error) => error.code().is_some_and(|code| {
            ["08", "25P03", "40", "53", "55P03", "57"]
                .iter()
                .any(|class| code.starts_with(class))
        }),
        _ => false,
    }
}

/// Whether another transaction held a lock for longer than the `lock_timeout`.
#[must_use]
pub fn is_lock_timeout(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .is_some_and(|error| error.code().is_some_and(|code| code == "55P03"))
}

/// Whether the same statement with the same values would fail again: data exceptions and violated constraints
/// (classes 22 and 23: PostgreSQL, appendix A).
#[must_use]
pub fn is_permanent(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .is_some_and(|code| code.starts_with("22") || code.starts_with("23"))
}

/// An error's text for a log. What PostgreSQL says about a row may quote its values, so of its errors only the
/// code (PostgreSQL, appendix A), the table and the constraint are told.
#[must_use]
pub fn without_data(error: &sqlx::Error) -> String {
    match error.as_database_error() {
        Some(error) => format!(
            "SQLSTATE {} on {} {}",
            error.code().unwrap_or_default(),
            error.table().unwrap_or("-"),
            error.constraint().unwrap_or("-"),
        ),
        None => error.to_string(),
    }
}
