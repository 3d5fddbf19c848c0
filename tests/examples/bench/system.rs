//! The services, their databases and their queues.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use usher_tests::{BrokerNames, Database, Program, ServiceName, setting, token_keys};

use crate::client::{Person, large_organization};

/// How often it is looked whether something has ended.
const POLL: Duration = Duration::from_millis(50);

pub struct System {
    pub account_url: String,
    /// As an administrator reaches it.
    pub account_admin_url: String,
    /// The database of account-svc with 10,000 accounts.
    pub small_url: String,
    pub small_admin_url: String,
    account: PgPool,
    notify_database: Database,
    names: BrokerNames,
    private_key: String,
    public_key: String,
    admin_ports: [u16; 2],
}

/// Names that are in a database.
pub struct Names {
    pub random: Vec<Person>,
    pub common: Vec<Person>,
    pub rare: Vec<Person>,
}

impl System {
    pub async fn prepare(large: &str, small: &str) -> anyhow::Result<Self> {
        let large = Database::open(ServiceName::Account, large).await?;
        let small = Database::open(ServiceName::Account, small).await?;
        let notify_database = Database::create(ServiceName::Notify).await?;
        let owner = notify_database.owner_url();
        Program::run("notify-svc", &["migrate"], &[("DATABASE_URL", &owner)]).await?;
        let (private_key, public_key) = token_keys().await?;
        let account = PgPool::connect(&large.admin_url()).await?;
        // `fill` leaves dead rows for the plans that `tests/explain` looks at.
        sqlx::raw_sql("ALTER TABLE outbox RESET (autovacuum_enabled)")
            .execute(&account)
            .await?;
        let system = Self {
            account,
            account_url: large.service_url(),
            account_admin_url: large.admin_url(),
            small_url: small.service_url(),
            small_admin_url: small.admin_url(),
            notify_database,
            names: BrokerNames::create("bench"),
            private_key,
            public_key,
            admin_ports: [free_port()?, free_port()?],
        };
        system.empty_outbox().await?;
        Ok(system)
    }

    /// Forgets events, and what they left in the table.
    pub async fn empty_outbox(&self) -> anyhow::Result<()> {
        for statement in ["DELETE FROM outbox", "VACUUM outbox"] {
            sqlx::raw_sql(statement).execute(&self.account).await?;
        }
        Ok(())
    }

    pub async fn vacuum(&self) -> anyhow::Result<()> {
        sqlx::raw_sql("VACUUM").execute(&self.account).await?;
        Ok(())
    }

    /// Starts account-svc on the large database, with more settings.
    pub async fn start_account_svc(&self, settings: &[(&str, &str)]) -> anyhow::Result<Program> {
        let admin = format!("127.0.0.1:{}", self.admin_ports[0]);
        let own = [
            ("DATABASE_URL", self.account_url.as_str()),
            ("TOKEN_PUBLIC_KEY", &self.public_key),
            ("PORTAL_ORIGINS", "https://portal.example"),
            ("ADMIN_LISTEN", &admin),
        ];
        self.start("account-svc", &[&own, settings].concat()).await
    }

    /// Starts notify-svc, with more settings.
    pub async fn start_notify_svc(
        &self,
        smtp_url: &str,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Program> {
        let admin = format!("127.0.0.1:{}", self.admin_ports[1]);
        let database_url = self.notify_database.service_url();
        let own = [
            ("DATABASE_URL", database_url.as_str()),
            ("TOKEN_PRIVATE_KEY", &self.private_key),
            ("SMTP_URL", smtp_url),
            ("SMTP_EHLO_NAME", "usher.example"),
            ("MAIL_FROM", "no-reply@usher.example"),
            ("ADMIN_LISTEN", &admin),
        ];
        self.start("notify-svc", &[&own, settings].concat()).await
    }

    async fn start(&self, name: &str, settings: &[(&str, &str)]) -> anyhow::Result<Program> {
        let amqp_url = setting("AMQP_URL")?;
        let shared = [
            ("AMQP_URL", amqp_url.as_str()),
            ("AMQP_PREFIX", &self.names.prefix),
            // A log line for each call would be measured too, and kept by this process.
            (
                "LOG_FILTER",
                "info,lapin=off,usher_runtime::server=warn,notify_svc::use_cases::sending=warn",
            ),
        ];
        Program::serve(name, &[&shared, settings].concat()).await
    }

    /// The exchange between the services.
    pub fn exchange(&self) -> String {
        format!(
            "{}{}",
            self.names.prefix,
            usher_proto::topology::INTERNAL_EXCHANGE
        )
    }

    /// Asks `/readyz` until it says yes.
    pub async fn wait_until_ready(&self, name: &str) -> anyhow::Result<()> {
        for _ in 0..10_000 {
            if let Ok(answer) = self.ask(name, "/readyz").await
                && answer.starts_with("HTTP/1.1 200")
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        anyhow::bail!("{name} does not become ready")
    }

    /// What the HTTP server of a service answers.
    async fn ask(&self, name: &str, path: &str) -> anyhow::Result<String> {
        let port = self.admin_ports[usize::from(name == "notify-svc")];
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    /// The metric of a service whose line begins like this and holds `label`; 0 if there is none yet.
    async fn metric(&self, service: &str, name: &str, label: &str) -> anyhow::Result<u64> {
        let metrics = self.ask(service, "/metrics").await?;
        let value = metrics.lines().find_map(|line| {
            let (labels, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
            labels.contains(label).then(|| value.parse().ok()).flatten()
        });
        Ok(value.unwrap_or(0))
    }

    /// Waits until the relay of account-svc has published so many events; returns how many, and when.
    pub async fn published_at_least(&self, events: u64) -> anyhow::Result<(u64, Instant)> {
        let started = Instant::now();
        loop {
            let name = "usher_outbox_published_total";
            let published = self.metric("account-svc", name, "").await?;
            if published >= events {
                return Ok((published, Instant::now()));
            }
            anyhow::ensure!(
                started.elapsed() < Duration::from_mins(3),
                "not all events were published"
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// Names in a database, common and rare.
    pub async fn names(&self, admin_url: &str) -> anyhow::Result<Names> {
        let mut connection = PgConnection::connect(admin_url).await?;
        let mut read = async |order: &str, count: usize| {
            let query = format!(
                "SELECT given_name, family_name, (floor(random() * 60) + 1940)::integer,
                    (floor(random() * 12) + 1)::integer, (floor(random() * 28) + 1)::integer
                FROM accounts WHERE organization_id = '{}' GROUP BY given_name, family_name
                ORDER BY {order} LIMIT {count}",
                large_organization()
            );
            let rows: Vec<(String, String, i32, i32, i32)> = sqlx::query_as(AssertSqlSafe(query))
                .fetch_all(&mut connection)
                .await?;
            let people = rows
                .into_iter()
                .map(|(given, family, year, month, day)| Person {
                    given,
                    family,
                    birth_date: (year, month, day),
                });
            anyhow::Ok(people.collect())
        };
        Ok(Names {
            // Of accounts, not of names: common names come more often.
            random: read("random() ^ (1.0 / count(*)) DESC", 500).await?,
            common: read("count(*) DESC", 10).await?,
            rare: read("count(*), random()", 500).await?,
        })
    }

    /// Waits until the relay has published all. Looks at the newest event, which goes last: counting would read
    /// the whole table.
    pub async fn wait_for_empty_outbox(&self) -> anyhow::Result<()> {
        let newest = "SELECT event_id FROM outbox ORDER BY event_id DESC LIMIT 1";
        while sqlx::query(newest)
            .fetch_optional(&self.account)
            .await?
            .is_some()
        {
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Waits until notify-svc has sent so many emails, as its metrics say.
    pub async fn wait_for_sent(&self, emails: usize) -> anyhow::Result<()> {
        let started = Instant::now();
        let name = "usher_deliveries_total{";
        while self.metric("notify-svc", name, r#"state="sent""#).await? < emails as u64 {
            anyhow::ensure!(
                started.elapsed() < Duration::from_mins(3),
                "not all emails were sent"
            );
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Puts events into the outbox, as large as those of an invitation, and each of a trace, as all are.
    pub async fn fill_outbox(&self, events: u32) -> anyhow::Result<()> {
        let fill = format!(
            "INSERT INTO outbox (event_id, organization_id, event_type, payload, trace_context)
             SELECT (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint), 12, '0') || '70008000'
                    || lpad(to_hex(n), 12, '0'))::uuid,
                '{}', 'invitation.requested.v1', decode(repeat('00', 600), 'hex'),
                '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'
             FROM generate_series(1, {events}) AS n;
             ANALYZE outbox",
            large_organization()
        );
        sqlx::raw_sql(AssertSqlSafe(fill))
            .execute(&self.account)
            .await?;
        Ok(())
    }

    /// Whether PostgreSQL waits for the disk.
    pub async fn fsync(&self) -> anyhow::Result<String> {
        Ok(sqlx::query_scalar("SHOW fsync")
            .fetch_one(&self.account)
            .await?)
    }

    pub async fn remove(self) -> anyhow::Result<()> {
        self.names.remove().await
    }
}

/// A figure of `/proc/<pid>/status`: `VmRSS` is what a process holds, `VmHWM` the most that it held.
pub fn mebibytes(program: &Program, name: &str) -> anyhow::Result<f64> {
    let id = program.id().context("it has ended")?;
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find(|line| line.starts_with(name));
    let figure = line.and_then(|line| line.split_whitespace().nth(1));
    let kibibytes: f64 = figure.context("no such figure")?.parse()?;
    Ok(kibibytes / 1024.0)
}

fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port())
}
