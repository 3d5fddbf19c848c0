//! What tests borrow from the servers in `DATABASE_URL` and `AMQP_URL`, and give back.

use anyhow::Context as _;
use lapin::{
    Connection, ConnectionProperties,
    options::{ExchangeDeleteOptions, QueueDeleteOptions},
};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use usher_proto::topology;
use uuid::Uuid;

/// The value of an environment variable that names a server.
///
/// # Errors
/// If it is not set; says how to set it.
pub fn setting(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| {
        format!("{name} is not set: run `make test`, which starts the servers, or set it yourself")
    })
}

/// A database of its own.
#[derive(Debug)]
pub struct Database {
    admin_url: String,
    name: String,
}

impl Database {
    /// Creates an empty database whose name begins with `prefix`.
    ///
    /// # Errors
    /// If the server at `DATABASE_URL` is away or refuses.
    pub async fn create(prefix: &str) -> anyhow::Result<Self> {
        let database = Self {
            admin_url: setting("DATABASE_URL")?,
            name: format!("{prefix}_{}", Uuid::now_v7().simple()),
        };
        database
            .administer(format!("CREATE DATABASE {}", database.name))
            .await?;
        Ok(database)
    }

    /// Its URL.
    ///
    /// # Errors
    /// If `DATABASE_URL` has no database in its path.
    pub fn url(&self) -> anyhow::Result<String> {
        let (server, rest) = self
            .admin_url
            .rsplit_once('/')
            .context("DATABASE_URL: no database in its path")?;
        let parameters = rest.find('?').map_or("", |start| &rest[start..]);
        Ok(format!("{server}/{}{parameters}", self.name))
    }

    /// Drops it, also under those who still use it.
    ///
    /// # Errors
    /// If the server is away.
    pub async fn remove(self) -> anyhow::Result<()> {
        self.administer(format!("DROP DATABASE {} WITH (FORCE)", self.name))
            .await
    }

    async fn administer(&self, statement: String) -> anyhow::Result<()> {
        let mut connection = PgConnection::connect(&self.admin_url)
            .await
            .context("DATABASE_URL: the server does not answer")?;
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut connection)
            .await?;
        connection.close().await?;
        Ok(())
    }
}

/// Exchange and queues of its own on a broker that others use too.
#[derive(Debug)]
pub struct BrokerNames {
    /// What `AMQP_PREFIX` is set to.
    pub prefix: String,
}

impl BrokerNames {
    /// Names that nobody else uses. The services declare them.
    #[must_use]
    pub fn create(prefix: &str) -> Self {
        Self {
            prefix: format!("{prefix}-{}.", Uuid::now_v7().simple()),
        }
    }

    /// Deletes what the services have declared.
    ///
    /// # Errors
    /// If the broker at `AMQP_URL` is away.
    pub async fn remove(self) -> anyhow::Result<()> {
        let url = setting("AMQP_URL")?;
        let connection = Connection::connect(&url, ConnectionProperties::default())
            .await
            .context("AMQP_URL: the broker does not answer")?;
        let channel = connection.create_channel().await?;
        for queue in topology::QUEUES {
            for name in [queue.name, queue.dead_letter_queue] {
                let name = format!("{}{name}", self.prefix);
                channel
                    .queue_delete(name.into(), QueueDeleteOptions::default())
                    .await?;
            }
        }
        let exchange = format!("{}{}", self.prefix, topology::EVENTS_EXCHANGE);
        channel
            .exchange_delete(exchange.into(), ExchangeDeleteOptions::default())
            .await?;
        connection.close(200, "done".into()).await?;
        Ok(())
    }
}
