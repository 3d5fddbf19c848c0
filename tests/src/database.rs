//! Databases of their own for tests, on the server that `DATABASE_URL` names, without a superuser: owned and
//! migrated by one plain login, used by the service with another.

use std::thread;

use anyhow::{Context as _, ensure};
use sqlx::{
    AssertSqlSafe, Connection as _, PgConnection, migrate::Migrator, postgres::PgConnectOptions,
};
use url::Url;
use uuid::Uuid;

use crate::setting;

/// What an administrator runs once for a cluster.
const ROLES: &str = include_str!("../../deploy/postgres/roles.sql");
/// What a superuser runs once for a server that Usher has to itself.
const MAINTENANCE_DATABASES: &str = include_str!("../../deploy/postgres/maintenance_databases.sql");
/// The logins that [`ROLES`] makes.
const OWNER: &str = "usher_owner";
const LOGINS: [&str; 3] = [OWNER, "account_login", "notify_login"];
/// Their password, for servers that ask for one.
const PASSWORD: &str = "usher-test";

/// What the names of these databases begin with.
const PREFIX: &str = "usher_test_";
/// The advisory lock of who makes the roles ("roles" in ASCII).
const ROLES_LOCK: i64 = 0x72_6f6c_6573;

/// Which service a database belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceName {
    /// account-svc.
    Account,
    /// notify-svc.
    Notify,
}

impl ServiceName {
    /// The name of its program.
    #[must_use]
    pub fn program(self) -> &'static str {
        match self {
            Self::Account => "account-svc",
            Self::Notify => "notify-svc",
        }
    }

    /// What the service logs in as.
    #[must_use]
    pub fn login(self) -> &'static str {
        match self {
            Self::Account => "account_login",
            Self::Notify => "notify_login",
        }
    }

    /// The role that the service works as.
    #[must_use]
    pub fn role(self) -> &'static str {
        match self {
            Self::Account => "account_service",
            Self::Notify => "notify_service",
        }
    }
}

/// A database with plain logins. One that was made for a test is dropped with this value, also when the test
/// panics, and one whose process was killed is dropped by the next process that creates one.
#[derive(Debug)]
pub struct Database {
    service: ServiceName,
    name: String,
    admin_url: Url,
    /// Holds the advisory lock that says that a test's database is in use: the server frees it however this
    /// process ends. None for a database that stays.
    in_use: Option<PgConnection>,
}

impl Database {
    /// Creates an empty database for a service.
    ///
    /// # Errors
    /// If the server at `DATABASE_URL` is away, or its login is no administrator.
    pub async fn create(service: ServiceName) -> anyhow::Result<Self> {
        let name = format!("{PREFIX}{}", Uuid::now_v7().simple());
        let (mut database, mut admin) = Self::connect(service, name).await?;
        drop_abandoned(&mut admin).await?;
        let name = &database.name;
        ensure!(lock(&mut admin, name).await?, "{name} is in use");
        run(&mut admin, format!("CREATE DATABASE {name} OWNER {OWNER}"))
            .await
            .context("DATABASE_URL: the login must be able to create databases and roles")?;
        database.in_use = Some(admin);
        Ok(database)
    }

    /// The database `name` of a service, which stays: for what is looked at more than once.
    ///
    /// # Errors
    /// If the server at `DATABASE_URL` is away, or its login is no administrator.
    pub async fn open(service: ServiceName, name: &str) -> anyhow::Result<Self> {
        let (database, admin) = Self::connect(service, name.to_owned()).await?;
        admin.close().await?;
        Ok(database)
    }

    /// Drops it if it exists, and creates it empty.
    ///
    /// # Errors
    /// If the server is away or refuses.
    pub async fn recreate(&self) -> anyhow::Result<()> {
        let name = &self.name;
        for statement in [
            format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
            format!("CREATE DATABASE {name} OWNER {OWNER}"),
        ] {
            self.administer(statement).await?;
        }
        Ok(())
    }

    async fn connect(service: ServiceName, name: String) -> anyhow::Result<(Self, PgConnection)> {
        let admin_url = Url::parse(&setting("DATABASE_URL")?).context("DATABASE_URL")?;
        let mut admin = PgConnection::connect(admin_url.as_str())
            .await
            .context("DATABASE_URL: the server does not answer")?;
        make_roles(&mut admin).await?;
        let database = Self {
            service,
            name,
            admin_url,
            in_use: None,
        };
        Ok((database, admin))
    }

    /// Creates a database and migrates it as its owner.
    ///
    /// # Errors
    /// As [`Database::create`], or if a migration fails.
    pub async fn migrated(service: ServiceName, migrations: &Migrator) -> anyhow::Result<Self> {
        let database = Self::create(service).await?;
        let mut owner = PgConnection::connect(&database.owner_url()).await?;
        migrations.run(&mut owner).await?;
        owner.close().await?;
        Ok(database)
    }

    /// Which service it belongs to.
    #[must_use]
    pub fn service(&self) -> ServiceName {
        self.service
    }

    /// URL for migrations: a plain login that owns the database.
    #[must_use]
    pub fn owner_url(&self) -> String {
        self.url_of(OWNER)
    }

    /// URL for the service: a plain login that owns nothing.
    #[must_use]
    pub fn service_url(&self) -> String {
        self.url_of(self.service.login())
    }

    /// URL of the administrator, whom row-level security does not bind.
    #[must_use]
    pub fn admin_url(&self) -> String {
        let mut url = self.admin_url.clone();
        url.set_path(&self.name);
        url.into()
    }

    /// A connection of the administrator.
    ///
    /// # Errors
    /// If the server is away.
    pub async fn admin(&self) -> sqlx::Result<PgConnection> {
        PgConnection::connect(&self.admin_url()).await
    }

    /// A connection with the service's login as it is, as who has stolen its password has it.
    ///
    /// # Errors
    /// If the server is away, or refuses the login.
    pub async fn stolen_login(&self) -> sqlx::Result<PgConnection> {
        PgConnection::connect(&self.service_url()).await
    }

    /// A connection with the service's login to another database of the server.
    ///
    /// # Errors
    /// If the server is away, or refuses the login.
    pub async fn stolen_login_to(&self, name: &str) -> sqlx::Result<PgConnection> {
        let options: PgConnectOptions = self.service_url().parse()?;
        PgConnection::connect_with(&options.database(name)).await
    }

    /// A connection with another of the logins that roles.sql makes.
    ///
    /// # Errors
    /// If the server is away, or refuses the login.
    pub async fn login_of(&self, login: &str) -> sqlx::Result<PgConnection> {
        PgConnection::connect(&self.url_of(login)).await
    }

    /// Ends all connections and allows no new ones.
    ///
    /// # Errors
    /// If the server is away.
    pub async fn cut_off(&self) -> anyhow::Result<()> {
        let name = &self.name;
        for statement in [
            format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false"),
            format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
            ),
        ] {
            self.administer(statement).await?;
        }
        Ok(())
    }

    /// Allows connections again.
    ///
    /// # Errors
    /// If the server is away.
    pub async fn connect_again(&self) -> anyhow::Result<()> {
        self.administer(format!(
            "ALTER DATABASE {} ALLOW_CONNECTIONS true",
            self.name
        ))
        .await
    }

    async fn administer(&self, statements: String) -> anyhow::Result<()> {
        let mut admin = PgConnection::connect(self.admin_url.as_str()).await?;
        run(&mut admin, statements).await?;
        Ok(admin.close().await?)
    }

    fn url_of(&self, login: &str) -> String {
        let mut url = self.admin_url.clone();
        // Neither fails for a URL with a host.
        let _ = url.set_username(login);
        let _ = url.set_password(Some(PASSWORD));
        url.set_path(&self.name);
        url.into()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if self.in_use.is_none() {
            return;
        }
        let url = self.admin_url.clone();
        let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        // In a thread, because the runtime of a test must not be blocked on itself. What goes wrong here is
        // put right by the next process that creates a database.
        let dropping = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let mut admin = PgConnection::connect(url.as_str()).await?;
                run(&mut admin, statement).await?;
                anyhow::Ok(())
            })
        });
        let _ = dropping.join();
    }
}

/// Makes the roles if one is missing, whoever else does so at the same time.
async fn make_roles(admin: &mut PgConnection) -> anyhow::Result<()> {
    let exist = "SELECT count(*) = 3 AND NOT bool_or(has_database_privilege(rolname, 'template1', 'CONNECT'))
        FROM pg_roles WHERE rolname = ANY ($1)";
    let exist = || sqlx::query_scalar::<_, bool>(exist).bind(LOGINS);
    if exist().fetch_one(&mut *admin).await? {
        return Ok(());
    }
    sqlx::query("SELECT pg_advisory_lock($1)")
        .bind(ROLES_LOCK)
        .execute(&mut *admin)
        .await?;
    if !exist().fetch_one(&mut *admin).await? {
        let passwords = LOGINS.map(|login| format!("ALTER ROLE {login} PASSWORD '{PASSWORD}';"));
        // Statements that are sent as one are one transaction.
        let statements = [ROLES, MAINTENANCE_DATABASES, &passwords.concat()];
        run(admin, statements.join("\n"))
            .await
            .context("DATABASE_URL: the login must be able to create databases and roles")?;
    }
    sqlx::query("SELECT pg_advisory_unlock($1)")
        .bind(ROLES_LOCK)
        .execute(admin)
        .await?;
    Ok(())
}

/// Drops the databases of processes that were killed.
async fn drop_abandoned(admin: &mut PgConnection) -> anyhow::Result<()> {
    let names: Vec<String> =
        sqlx::query_scalar("SELECT datname::text FROM pg_database WHERE starts_with(datname, $1)")
            .bind(PREFIX)
            .fetch_all(&mut *admin)
            .await?;
    for name in names {
        if lock(admin, &name).await? {
            run(
                admin,
                format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
            )
            .await?;
            sqlx::query("SELECT pg_advisory_unlock(hashtextextended($1, 0))")
                .bind(&name)
                .execute(&mut *admin)
                .await?;
        }
    }
    Ok(())
}

/// Takes the lock that says that the database `name` is in use; false if another session has it.
async fn lock(admin: &mut PgConnection, name: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar("SELECT pg_try_advisory_lock(hashtextextended($1, 0))")
        .bind(name)
        .fetch_one(admin)
        .await
}

async fn run(connection: &mut PgConnection, statements: String) -> sqlx::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statements))
        .execute(connection)
        .await?;
    Ok(())
}
