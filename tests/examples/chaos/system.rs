//! notify-svc with a database and queues of its own.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use sqlx::PgPool;
use usher_runtime::{
    bus::{EventBus, Message},
    seal::PublicKey,
};
use usher_tests::{BrokerNames, Database, Program, ServiceName, setting, token_keys};

use crate::{mails::Mail, relay::Relay};

/// How often it is looked whether something has come about.
pub const POLL: Duration = Duration::from_millis(100);

pub struct System {
    pub admin: PgPool,
    pub public_key: PublicKey,
    pub bus: EventBus,
    database: Database,
    names: BrokerNames,
    amqp_url: String,
    private_key: String,
}

impl System {
    pub async fn prepare() -> anyhow::Result<Self> {
        let database = Database::create(ServiceName::Notify).await?;
        let owner = database.owner_url();
        Program::run("notify-svc", &["migrate"], &[("DATABASE_URL", &owner)]).await?;
        let (private_key, public_key) = token_keys().await?;
        let names = BrokerNames::create("chaos");
        let amqp_url = setting("AMQP_URL")?;
        let bus = EventBus::rabbitmq_with_prefix(&amqp_url.clone().into(), "chaos", &names.prefix)?;
        Ok(Self {
            admin: PgPool::connect(&database.admin_url()).await?,
            public_key: PublicKey::from_base64(&public_key)?,
            bus,
            database,
            names,
            amqp_url,
            private_key,
        })
    }

    /// As the service reaches the database.
    pub fn database_url(&self) -> String {
        self.database.service_url()
    }

    /// Starts a notify-svc with more settings, which count more than these.
    pub async fn start(&self, settings: &[(&str, &str)]) -> anyhow::Result<Program> {
        let database_url = self.database_url();
        let own = [
            ("DATABASE_URL", database_url.as_str()),
            ("AMQP_URL", &self.amqp_url),
            ("AMQP_PREFIX", &self.names.prefix),
            ("TOKEN_PRIVATE_KEY", &self.private_key),
            ("SMTP_EHLO_NAME", "usher.example"),
            ("MAIL_FROM", "no-reply@usher.example"),
            // Short, so that stalls and what a killed process had hold little up.
            ("SMTP_COMMAND_TIMEOUT", "1s"),
            ("SMTP_DATA_TIMEOUT", "1s"),
            ("SEND_LEASE", "7s"),
            // A line for each email would be kept by this program.
            (
                "LOG_FILTER",
                "info,lapin=off,notify_svc::use_cases::sending::worker=warn",
            ),
        ];
        Program::serve("notify-svc", &[&own, settings].concat()).await
    }

    /// Publishes emails, until the broker has all of them.
    pub async fn publish(&self, mails: &[Mail]) -> anyhow::Result<()> {
        self.bus.connected().await;
        let messages = mails.iter().map(|mail| mail.message.clone());
        let mut messages: Vec<Message> = messages.collect();
        for _ in 0..10 {
            let results = self.bus.publish(&messages).await;
            let refused = messages.into_iter().zip(results);
            messages = refused
                .filter_map(|(message, result)| result.is_err().then_some(message))
                .collect();
            if messages.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        anyhow::bail!("the broker does not take all events")
    }

    /// Puts emails into the queue and none through: while they are taken in, the relay does not answer.
    pub async fn fill(
        &self,
        emails: usize,
        mail: impl Fn(usize) -> anyhow::Result<Mail>,
    ) -> anyhow::Result<Duration> {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let url = format!("smtp+plaintext://{nobody}");
        let program = self.start(&[("SMTP_URL", &url)]).await?;
        let started = Instant::now();
        for start in (0..emails).step_by(1_000) {
            let mails: anyhow::Result<Vec<_>> =
                (start..emails.min(start + 1_000)).map(&mail).collect();
            self.publish(&mails?).await?;
        }
        self.wait_for("all emails taken in", async || {
            Ok(self.count("deliveries").await? >= emails)
        })
        .await?;
        let time = started.elapsed();
        program.stop().await?;
        Ok(time)
    }

    /// Rows of a table.
    pub async fn count(&self, table: &'static str) -> anyhow::Result<usize> {
        let query = match table {
            "deliveries" => "SELECT count(*) FROM deliveries",
            "delivery_queue" => "SELECT count(*) FROM delivery_queue",
            "outbox" => "SELECT count(*) FROM outbox",
            _ => anyhow::bail!("no such table"),
        };
        let count: i64 = sqlx::query_scalar(query).fetch_one(&self.admin).await?;
        Ok(count.try_into()?)
    }

    /// Waits until the relay has accepted so many emails.
    pub async fn wait_for_accepted(&self, relay: &Relay, emails: usize) -> anyhow::Result<()> {
        self.wait_for("accepted emails", async || Ok(relay.accepted() >= emails))
            .await
    }

    /// Waits until `condition` holds, for at most `CHAOS_DEADLINE` seconds.
    pub async fn wait_for(
        &self,
        what: &str,
        condition: impl AsyncFn() -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(crate::number("CHAOS_DEADLINE", 400)?);
        while !condition().await.context(what.to_owned())? {
            anyhow::ensure!(Instant::now() < deadline, "not in time: {what}");
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    pub async fn remove(self) -> anyhow::Result<()> {
        self.bus.close().await;
        self.admin.close().await;
        self.names.remove().await
    }
}
