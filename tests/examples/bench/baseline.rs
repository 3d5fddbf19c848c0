//! Baselines: what the parts of the services do alone.

use std::{
    collections::VecDeque,
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use account_svc::domain::password::Hasher;
use anyhow::Context as _;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable},
};
use secrecy::SecretString;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use usher_tests::setting;

use crate::{milliseconds, percentile, system::System};

const QUEUE: &str = "usher-bench-raw";
const OUTSTANDING: usize = 500;

/// The minimal create on the minimal schema: what PostgreSQL can do at most.
pub const ONE_STATEMENT: &str = include_str!("create_one_statement.pgbench");
/// The same as nine statements.
pub const NINE_STATEMENTS: &str = include_str!("create_nine_statements.pgbench");

/// How often something was done, and how long it took.
#[derive(Default)]
pub struct Rate {
    /// In a second.
    pub per_second: f64,
    /// In milliseconds.
    pub p50: f64,
    /// In milliseconds.
    pub p99: f64,
}

impl Rate {
    /// Of all that was done in `elapsed`.
    pub fn new(mut times: Vec<Duration>, elapsed: Duration) -> Self {
        Self {
            per_second: times.len() as f64 / elapsed.as_secs_f64(),
            p50: milliseconds(percentile(&mut times, 50)),
            p99: milliseconds(percentile(&mut times, 99)),
        }
    }
}

/// pgbench with a minimal create on a minimal schema.
pub async fn limit(
    system: &System,
    script: &str,
    clients: usize,
    time: Duration,
) -> anyhow::Result<Rate> {
    let mut connection = PgConnection::connect(&system.account_admin_url).await?;
    let schema = concat!(
        "DROP SCHEMA IF EXISTS bench_limit CASCADE; CREATE SCHEMA bench_limit; SET search_path TO bench_limit;",
        include_str!("create_limit_schema.sql")
    );
    sqlx::raw_sql(schema).execute(&mut connection).await?;
    let rate = pgbench(&system.account_admin_url, script, clients, time);
    sqlx::raw_sql("DROP SCHEMA bench_limit CASCADE")
        .execute(&mut connection)
        .await?;
    rate
}

fn pgbench(url: &str, script: &str, clients: usize, time: Duration) -> anyhow::Result<Rate> {
    let directory = std::env::temp_dir().join(format!("usher-bench-{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    fs::write(directory.join("script"), script)?;
    let clients = clients.to_string();
    let output = Command::new("pgbench")
        .current_dir(&directory)
        .env("PGOPTIONS", "-c search_path=bench_limit")
        .args([
            "-n", "-M", "prepared", "-j", "2", "-l", "-f", "script", "-c", &clients,
        ])
        .args(["-T", &time.as_secs().to_string(), url])
        .output()
        .context("pgbench: install Debian's package postgresql")?;
    anyhow::ensure!(
        output.status.success(),
        "pgbench: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let rate = Rate::new(latencies(&directory)?, time);
    fs::remove_dir_all(&directory)?;
    Ok(rate)
}

fn latencies(directory: &Path) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::new();
    for file in fs::read_dir(directory)? {
        let path = file?.path();
        if path.to_string_lossy().contains("pgbench_log") {
            for line in fs::read_to_string(path)?.lines() {
                let microseconds = line.split(' ').nth(2).context("no latency")?.parse()?;
                times.push(Duration::from_micros(microseconds));
            }
        }
    }
    Ok(times)
}

/// Confirmed messages a second of lapin alone.
pub async fn publish(events: u32) -> anyhow::Result<f64> {
    let (connection, channel) = raw_channel().await?;
    let body = [0; 600];
    let started = Instant::now();
    let mut unconfirmed = VecDeque::with_capacity(OUTSTANDING);
    for _ in 0..events {
        if unconfirmed.len() == OUTSTANDING
            && let Some(confirm) = unconfirmed.pop_front()
        {
            confirmed(confirm).await?;
        }
        unconfirmed.push_back(send(&channel, &body).await?);
    }
    for confirm in unconfirmed {
        confirmed(confirm).await?;
    }
    let rate = f64::from(events) / started.elapsed().as_secs_f64();
    close(connection, &channel).await?;
    Ok(rate)
}

/// The time of one confirmed publish: half of 60 take less.
pub async fn one_publish() -> anyhow::Result<Duration> {
    let (connection, channel) = raw_channel().await?;
    let mut times = Vec::new();
    for _ in 0..60 {
        let started = Instant::now();
        confirmed(send(&channel, &[0; 600]).await?).await?;
        times.push(started.elapsed());
    }
    close(connection, &channel).await?;
    Ok(percentile(&mut times, 50))
}

async fn close(connection: Connection, channel: &Channel) -> anyhow::Result<()> {
    channel
        .queue_delete(QUEUE.into(), QueueDeleteOptions::default())
        .await?;
    connection.close(200, "done".into()).await?;
    Ok(())
}

async fn raw_channel() -> anyhow::Result<(Connection, Channel)> {
    let connection =
        Connection::connect(&setting("AMQP_URL")?, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let mut arguments = FieldTable::default();
    arguments.insert(
        "x-queue-type".into(),
        AMQPValue::LongString("quorum".into()),
    );
    let durable = QueueDeclareOptions {
        durable: true,
        ..Default::default()
    };
    channel
        .queue_declare(QUEUE.into(), durable, arguments)
        .await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    Ok((connection, channel))
}

async fn send(channel: &Channel, body: &[u8]) -> anyhow::Result<lapin::PublisherConfirm> {
    let persistent = BasicProperties::default().with_delivery_mode(2);
    let options = BasicPublishOptions::default();
    Ok(channel
        .basic_publish("".into(), QUEUE.into(), options, body, persistent)
        .await?)
}

async fn confirmed(confirm: lapin::PublisherConfirm) -> anyhow::Result<()> {
    let confirmation: Confirmation = confirm.await?;
    anyhow::ensure!(confirmation.is_ack(), "refused");
    Ok(())
}

/// The time of `SELECT 1`: half of 1,000 take less.
pub async fn round_trip(system: &System) -> anyhow::Result<Duration> {
    let mut connection = PgConnection::connect(&system.account_admin_url).await?;
    let mut times = Vec::new();
    for _ in 0..1_000 {
        let started = Instant::now();
        sqlx::query("SELECT 1").execute(&mut connection).await?;
        times.push(started.elapsed());
    }
    Ok(percentile(&mut times, 50))
}

/// The time of one small commit: half of 60 take less.
pub async fn commit(system: &System) -> anyhow::Result<Duration> {
    let mut connection = PgConnection::connect(&system.account_admin_url).await?;
    let statement = "CREATE TABLE IF NOT EXISTS bench_commit (n integer)".to_owned();
    sqlx::raw_sql(AssertSqlSafe(statement))
        .execute(&mut connection)
        .await?;
    let mut times = Vec::new();
    for _ in 0..60 {
        let started = Instant::now();
        sqlx::query("INSERT INTO bench_commit VALUES (1)")
            .execute(&mut connection)
            .await?;
        times.push(started.elapsed());
    }
    Ok(percentile(&mut times, 50))
}

/// Password hashes a second on all processors, with the parameters of account-svc and nothing else to do.
pub fn hashes(time: Duration) -> anyhow::Result<f64> {
    let started = Instant::now();
    let threads: Vec<_> = (0..crate::processors::processors() as usize)
        .map(|_| {
            thread::spawn(move || {
                let mut hasher = Hasher::default();
                let password = SecretString::from("correct horse battery staple");
                let mut count = 0_u32;
                while started.elapsed() < time {
                    hasher
                        .hash(&password)
                        .map_err(|error| anyhow::anyhow!("{error}"))?;
                    count += 1;
                }
                anyhow::Ok((count, started.elapsed()))
            })
        })
        .collect();
    let mut rate = 0.0;
    for thread in threads {
        let (count, elapsed) = thread.join().map_err(|_| anyhow::anyhow!("a panic"))??;
        rate += f64::from(count) / elapsed.as_secs_f64();
    }
    Ok(rate)
}
