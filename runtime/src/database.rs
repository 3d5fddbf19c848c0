//! How a service reaches its PostgreSQL: as a role that owns nothing, and in transactions that say whose
//! rows they may see.

use std::{str::FromStr as _, time::Duration};

use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{
    AssertSqlSafe, Connection as _, PgConnection, PgPool, Postgres, Transaction,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use uuid::Uuid;

/// A transaction of the service: see [`begin`].
pub type Tx = Transaction<'static, Postgres>;

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
            // A call gives up after 30 s at most; the database should not go on for longer.
            ("statement_timeout", "30s"),
            ("idle_in_transaction_session_timeout", "60s"),
        ]);
    Ok(PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(Duration::from_secs(5))
        .connect_lazy_with(options))
}

/// Brings a database up to date, as whoever `url` logs in.
///
/// # Errors
/// If the database is away or a migration fails.
pub async fn migrate(url: &SecretString, migrations: &Migrator) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(url.expose_secret())
        .await
        .context("DATABASE_URL: the database cannot be reached")?;
    migrations.run(&mut connection).await?;
    connection.close().await?;
    tracing::info!("the database is up to date");
    Ok(())
}

/// Begins a transaction in `scope`. This is the only way to begin one: without a scope, row-level
/// security shows no rows at all.
///
/// # Errors
/// If no connection is to be had in time or the database is away.
pub async fn begin(pool: &PgPool, scope: Scope) -> Result<Tx, sqlx::Error> {
    // One round trip instead of two. The only thing put into the text is a UUID.
    let statement = match scope {
        Scope::Organization(organization_id) => {
            format!("BEGIN; SET LOCAL usher.organization_id = '{organization_id}'")
        }
        Scope::Platform => "BEGIN; SET LOCAL usher.scope = 'platform'".to_owned(),
    };
    pool.begin_with(AssertSqlSafe(statement)).await
}

/// Whether the database is away or at its limits, so that the same call may succeed later.
#[must_use]
pub fn is_outage(error: &sqlx::Error) -> bool {
    use sqlx::Error as Sql;
    match error {
        Sql::Io(_) | Sql::Tls(_) | Sql::PoolTimedOut | Sql::PoolClosed | Sql::BeginFailed => true,
        // Classes 08 (connection), 53 (resources), 57 (operator intervention): PostgreSQL, appendix A.
        Sql::Database(error) => error.code().is_some_and(|code| {
            ["08", "53", "57"]
                .iter()
                .any(|class| code.starts_with(class))
        }),
        _ => false,
    }
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
