//! The two databases: on a private server, or on one that is named.

use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use url::Url;

/// The databases by service: each service has its own.
pub(crate) const ACCOUNT: &str = "usher_account";
pub(crate) const NOTIFY: &str = "usher_notify";

/// URL of `database` on the server of `server_url`; makes the database if there is none.
///
/// # Errors
///
/// If the server does not answer, or the login may not create a database.
pub(crate) async fn open(
    server_url: &SecretString,
    database: &'static str,
) -> anyhow::Result<SecretString> {
    let mut connection = PgConnection::connect(server_url.expose_secret())
        .await
        .context("cannot connect to the PostgreSQL server (DATABASE_URL)")?;
    let exists: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
            .bind(database)
            .fetch_one(&mut connection)
            .await?;
    if !exists {
        // The name is one of the constants above.
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {database}")))
            .execute(&mut connection)
            .await
            .with_context(|| format!("cannot create the database {database} (DATABASE_URL)"))?;
    }
    connection.close().await?;
    let mut url = Url::parse(server_url.expose_secret()).context("DATABASE_URL is not a URL")?;
    url.set_path(database);
    Ok(SecretString::from(url.to_string()))
}
