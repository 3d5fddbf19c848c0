//! The two databases: on a private server, or on one that is named.

use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use url::Url;

/// The roles of an installation, which a private server gets too.
const ROLES: &str = include_str!("../../postgres/roles.sql");
/// Owns both databases of a private server.
const OWNER: &str = "usher_owner";

/// A service's database and logins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names {
    database: &'static str,
    login: &'static str,
    role: &'static str,
}

pub(crate) const ACCOUNT: Names = Names {
    database: "usher_account",
    login: "account_login",
    role: account_svc::db::ROLE,
};
pub(crate) const NOTIFY: Names = Names {
    database: "usher_notify",
    login: "notify_login",
    role: notify_svc::db::ROLE,
};

/// A PostgreSQL server, and who is logged in there.
pub(crate) enum Server {
    /// Ours alone, with its superuser, who only makes roles and databases.
    Private(SecretString),
    /// Somebody's, with a login that may create databases and roles, and does everything.
    Named(SecretString),
}

/// URLs of a database.
pub(crate) struct Database {
    /// Who migrates.
    pub(crate) owner_url: SecretString,
    /// Who serves.
    pub(crate) service_url: SecretString,
}

impl Server {
    /// Makes the roles, and the database if there is none.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or the login may not create databases and roles.
    pub(crate) async fn open(&self, names: Names) -> anyhow::Result<Database> {
        let (Self::Private(url) | Self::Named(url)) = self;
        let mut connection = PgConnection::connect(url.expose_secret())
            .await
            .context("cannot connect to the PostgreSQL server (DATABASE_URL)")?;
        let (owner, login) = match self {
            Self::Private(_) => {
                run(&mut connection, ROLES.to_owned()).await?;
                (Some(OWNER), Some(names.login))
            }
            Self::Named(_) => {
                let role = names.role;
                run(&mut connection, may_become(role))
                    .await
                    .with_context(|| format!("cannot take on the role {role} (DATABASE_URL)"))?;
                (None, None)
            }
        };
        let exists: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
                .bind(names.database)
                .fetch_one(&mut connection)
                .await?;
        if !exists {
            let (database, owner) = (names.database, owner.unwrap_or("CURRENT_USER"));
            run(
                &mut connection,
                format!("CREATE DATABASE {database} OWNER {owner}"),
            )
            .await
            .with_context(|| format!("cannot create the database {database} (DATABASE_URL)"))?;
        }
        connection.close().await?;
        Ok(Database {
            owner_url: url_of(url, names.database, owner)?,
            service_url: url_of(url, names.database, login)?,
        })
    }
}

/// Makes a service's role if it is missing, and lets the login take it on.
fn may_become(role: &str) -> String {
    format!(
        "DO $$
        BEGIN
            IF to_regrole('{role}') IS NULL THEN
                CREATE ROLE {role} NOLOGIN;
            END IF;
            -- Since version 16, to be a member is not enough.
            IF NOT pg_has_role(current_user, '{role}',
                CASE WHEN current_setting('server_version_num')::integer < 160000
                    THEN 'MEMBER' ELSE 'SET' END) THEN
                GRANT {role} TO CURRENT_USER;
            END IF;
        END $$"
    )
}

/// The URL of a database, for another login if one is given: a private server asks for no password.
fn url_of(
    server_url: &SecretString,
    database: &str,
    login: Option<&str>,
) -> anyhow::Result<SecretString> {
    let mut url = Url::parse(server_url.expose_secret()).context("DATABASE_URL is not a URL")?;
    url.set_path(database);
    if let Some(login) = login {
        url.set_username(login)
            .map_err(|()| anyhow::anyhow!("DATABASE_URL names no host"))?;
    }
    Ok(SecretString::from(url.to_string()))
}

/// The names in the statements are constants of this program.
async fn run(connection: &mut PgConnection, statements: String) -> sqlx::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statements))
        .execute(connection)
        .await?;
    Ok(())
}
