//! The services, their databases and their queues.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, PgPool};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;
use usher_runtime::{
    bus::EventBus,
    database::Pools,
    relay::{self, Wake},
};
use usher_tests::{BrokerNames, Database, Program, ServiceName, setting, token_keys};

/// How often it is looked whether something has ended.
const POLL: Duration = Duration::from_millis(20);

pub struct System {
    pub account_url: String,
    /// As an administrator reaches it.
    pub account_admin_url: String,
    account: PgPool,
    notify_database: Database,
    names: BrokerNames,
    private_key: String,
    public_key: String,
    admin_ports: [u16; 2],
}

impl System {
    pub async fn prepare(account_database: &str) -> anyhow::Result<Self> {
        let account_database = Database::open(ServiceName::Account, account_database).await?;
        let notify_database =
            Database::migrated(ServiceName::Notify, &notify_svc::db::MIGRATIONS).await?;
        let (private_key, public_key) = token_keys().await?;
        let account = PgPool::connect(&account_database.admin_url()).await?;
        sqlx::raw_sql(
            "CREATE OR REPLACE FUNCTION bench_id(n bigint, kind integer) RETURNS uuid LANGUAGE sql STABLE
             RETURN (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint), 12, '0') || '7'
                || lpad(to_hex(kind), 3, '0') || '8' || lpad(to_hex(n), 15, '0'))::uuid",
        )
        .execute(&account)
        .await?;
        let system = Self {
            account,
            account_url: account_database.service_url(),
            account_admin_url: account_database.admin_url(),
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

    pub async fn start_account_svc(&self) -> anyhow::Result<Program> {
        let admin = format!("127.0.0.1:{}", self.admin_ports[0]);
        self.start(
            "account-svc",
            &[
                ("DATABASE_URL", &self.account_url),
                ("TOKEN_PUBLIC_KEY", &self.public_key),
                ("PORTAL_ORIGINS", "https://portal.example"),
                ("ADMIN_LISTEN", &admin),
            ],
        )
        .await
    }

    pub async fn start_notify_svc(&self, smtp_url: &str) -> anyhow::Result<Program> {
        let admin = format!("127.0.0.1:{}", self.admin_ports[1]);
        self.start(
            "notify-svc",
            &[
                ("DATABASE_URL", &self.notify_database.service_url()),
                ("TOKEN_PRIVATE_KEY", &self.private_key),
                ("SMTP_URL", smtp_url),
                ("ADMIN_LISTEN", &admin),
            ],
        )
        .await
    }

    async fn start(&self, name: &str, settings: &[(&str, &str)]) -> anyhow::Result<Program> {
        let amqp_url = setting("AMQP_URL")?;
        let mut all = vec![
            ("AMQP_URL", amqp_url.as_str()),
            ("AMQP_PREFIX", &self.names.prefix),
            // A log line for each call would be measured too, and kept by this process.
            (
                "LOG_FILTER",
                "info,lapin=off,usher_runtime::server=warn,notify_svc::use_cases::sending=warn",
            ),
        ];
        all.extend_from_slice(settings);
        Program::serve(name, &all).await
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

    /// An organization with every hundredth account of the large one.
    pub async fn organization_of_10_000(&self) -> anyhow::Result<String> {
        let id = "01900000-0000-7000-8000-00000000ffff";
        let large = crate::client::large_organization();
        let copy = format!(
            "DO $$ BEGIN IF NOT EXISTS (SELECT FROM organizations WHERE organization_id = '{id}') THEN
                CREATE TEMP TABLE o AS SELECT * FROM organizations WHERE organization_id = '{large}';
                UPDATE o SET organization_id = '{id}', slug = 'ten-thousand';
                INSERT INTO organizations SELECT * FROM o;
                CREATE TEMP TABLE a AS SELECT * FROM accounts WHERE organization_id = '{large}'
                    AND hashtext(account_id::text) % 100 = 0;
                UPDATE a SET organization_id = '{id}', last_invitation_id = NULL;
                INSERT INTO accounts SELECT * FROM a;
            END IF; END $$"
        );
        sqlx::raw_sql(AssertSqlSafe(copy))
            .execute(&self.account)
            .await?;
        sqlx::raw_sql("ANALYZE accounts")
            .execute(&self.account)
            .await?;
        Ok(id.to_owned())
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
        while self.sent().await? < emails {
            anyhow::ensure!(
                started.elapsed() < Duration::from_mins(3),
                "not all emails were sent"
            );
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    async fn sent(&self) -> anyhow::Result<usize> {
        let metrics = self.ask("notify-svc", "/metrics").await?;
        let sent = metrics.lines().find_map(|line| {
            let (labels, count) = line
                .strip_prefix("usher_deliveries_total{")?
                .rsplit_once(' ')?;
            let is_sent = labels.contains(r#"state="sent""#);
            is_sent.then(|| count.parse().ok()).flatten()
        });
        Ok(sent.unwrap_or(0))
    }

    /// Events a second that leave a full outbox.
    pub async fn relay(&self, events: u32) -> anyhow::Result<f64> {
        let fill = format!(
            "INSERT INTO outbox (event_id, organization_id, event_type, payload)
             SELECT bench_id(n, 7), '{}', 'invitation.requested.v1', decode(repeat('00', 600), 'hex')
             FROM generate_series(1, {events}) AS n",
            crate::client::large_organization()
        );
        let names = BrokerNames::create("bench-relay");
        let url = setting("AMQP_URL")?.into();
        let bus = EventBus::rabbitmq_with_prefix(&url, "bench", &names.prefix)?;
        bus.connected().await;
        sqlx::raw_sql(AssertSqlSafe(fill))
            .execute(&self.account)
            .await?;
        let url = self.account_url.clone().into();
        let pool = Pools::connect(&url, account_svc::db::ROLE, 4, 4)?.workers;
        let stop = CancellationToken::new();
        let started = Instant::now();
        let relay = tokio::spawn(relay::run(pool, bus.clone(), Wake::default(), stop.clone()));
        self.wait_for_empty_outbox().await?;
        let rate = f64::from(events) / started.elapsed().as_secs_f64();
        stop.cancel();
        relay.await?;
        bus.close().await;
        names.remove().await?;
        Ok(rate)
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

fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port())
}
