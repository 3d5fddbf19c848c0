//! Baselines: what the parts of the services do alone.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable},
};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use usher_tests::setting;

use crate::{percentile, system::System};

const QUEUE: &str = "usher-bench-raw";
const OUTSTANDING: usize = 500;

pub struct Rate {
    pub rate: f64,
    /// In milliseconds.
    pub p99: f64,
}

/// The statements of a `CreateAccount` with a request id and an email, in their order: a part of the text that
/// .sqlx has, and the parameters. `:n` is a number for each transaction; `bench_id` makes the ids of a transaction.
const STATEMENTS: [(&str, &[&str]); 11] = [
    (
        "INSERT INTO stored_responses",
        &["ORG", "bench_id(:n, 1)", "sha256('x')"],
    ),
    ("FROM organizations WHERE organization_id = $1\"", &["ORG"]),
    (
        "organization_id = $1 AND email_canonical = $2",
        &["ORG", "EMAIL"],
    ),
    ("email_is_on_platform($1)", &["EMAIL"]),
    (
        "AS namesake",
        &[
            "ORG",
            "'new ' || :n::text",
            "'new ' || :n::text",
            "200::bigint",
        ],
    ),
    (
        "INSERT INTO accounts",
        &[
            "ORG",
            "bench_id(:n, 2)",
            "'Given'",
            "'Family'",
            "EMAIL",
            "EMAIL",
            "NULL",
            "NULL",
            "'[]'::jsonb",
            "'[]'::jsonb",
            "'[]'::jsonb",
            "''",
            "''",
            "'{}'::jsonb",
            "'en'",
            "'new ' || :n::text",
            "'new ' || :n::text",
        ],
    ),
    (
        "INSERT INTO invitations",
        &[
            "ORG",
            "bench_id(:n, 3)",
            "bench_id(:n, 2)",
            "'ACTIVATION'",
            "EMAIL",
            "EMAIL",
            "'en'",
            "'anonymous'",
            "''",
            "''",
            "2592000",
            "sha256((:n::text)::bytea)",
        ],
    ),
    (
        "a.organization_id = $1 AND a.account_id = $2",
        &["ORG", "bench_id(:n, 2)"],
    ),
    (
        "INSERT INTO outbox",
        &[
            "ARRAY[bench_id(:n, 4), bench_id(:n, 5)]",
            "ARRAY[ORG, ORG]",
            "ARRAY['account.created.v1', 'invitation.requested.v1']",
            "ARRAY[decode(repeat('00', 120), 'hex'), decode(repeat('00', 600), 'hex')]",
            "ARRAY['TRACE', 'TRACE']",
        ],
    ),
    (
        "INSERT INTO audit_events",
        &[
            "ORG",
            "ARRAY[bench_id(:n, 6), bench_id(:n, 7)]",
            "ARRAY[bench_id(:n, 2), bench_id(:n, 2)]",
            "ARRAY['account.created', 'invitation.sent']",
            "'anonymous'",
            "ARRAY['{}'::jsonb, '{}'::jsonb]",
            "'4bf92f3577b34da6a3ce929d0e0e4736'",
        ],
    ),
    (
        "UPDATE stored_responses",
        &["ORG", "bench_id(:n, 1)", "decode(repeat('00', 500), 'hex')"],
    ),
];

/// pgbench with the statements of `CreateAccount`.
pub fn own_statements(system: &System, clients: usize, time: Duration) -> anyhow::Result<Rate> {
    let role = "-c role=account_service";
    pgbench(&system.account_url, role, &script()?, clients, time)
}

/// pgbench with a minimal create as one statement on a minimal schema: what PostgreSQL can do at most.
pub async fn limit(system: &System, clients: usize, time: Duration) -> anyhow::Result<Rate> {
    let mut connection = PgConnection::connect(&system.account_admin_url).await?;
    let schema = concat!(
        "DROP SCHEMA IF EXISTS bench_limit CASCADE; CREATE SCHEMA bench_limit; SET search_path TO bench_limit;",
        include_str!("limit_schema.sql")
    );
    sqlx::raw_sql(schema).execute(&mut connection).await?;
    let rate = pgbench(
        &system.account_admin_url,
        "-c search_path=bench_limit",
        include_str!("limit.pgbench"),
        clients,
        time,
    );
    sqlx::raw_sql("DROP SCHEMA bench_limit CASCADE")
        .execute(&mut connection)
        .await?;
    rate
}

fn pgbench(
    url: &str,
    options: &str,
    script: &str,
    clients: usize,
    time: Duration,
) -> anyhow::Result<Rate> {
    let directory = std::env::temp_dir().join(format!("usher-bench-{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    fs::write(directory.join("script"), script)?;
    let clients = clients.to_string();
    let output = Command::new("pgbench")
        .current_dir(&directory)
        .env("PGOPTIONS", options)
        .args([
            "-n", "-M", "prepared", "-j", "2", "-l", "-f", "script", "-c", &clients,
        ])
        .args(["-T", &time.as_secs().to_string(), url])
        .output()
        .context("pgbench: install Debian's package postgresql")?;
    let said = String::from_utf8_lossy(&output.stdout);
    anyhow::ensure!(
        output.status.success(),
        "pgbench: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let rate = said
        .lines()
        .find_map(|line| line.strip_prefix("tps = ")?.split(' ').next())
        .context("pgbench prints no rate")?
        .parse()?;
    let mut times = latencies(&directory)?;
    fs::remove_dir_all(&directory)?;
    Ok(Rate {
        rate,
        p99: percentile(&mut times, 99).as_secs_f64() * 1e3,
    })
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

fn script() -> anyhow::Result<String> {
    let queries = queries()?;
    let organization = crate::client::large_organization();
    let mut script = format!(
        "\\set n random(1, 1000000000000000)\nBEGIN; SET LOCAL usher.organization_id = '{organization}';\n"
    );
    for (part, parameters) in STATEMENTS {
        let query = queries
            .iter()
            .find(|query| format!("{query}\"").contains(part))
            .with_context(|| format!("no query with {part} in .sqlx"))?;
        let mut query = query.clone();
        for (index, parameter) in parameters.iter().enumerate().rev() {
            let value = parameter
                .replace("ORG", &format!("'{organization}'::uuid"))
                .replace("EMAIL", "'new' || :n::text || '@mail.example'")
                .replace(
                    "TRACE",
                    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                );
            let value = format!("({value})");
            query = query.replace(&format!("${}", index + 1), &value);
        }
        writeln!(script, "{query};")?;
    }
    script.push_str("COMMIT;\n");
    Ok(script)
}

/// The texts of the queries in .sqlx, each on one line.
fn queries() -> anyhow::Result<Vec<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut queries = Vec::new();
    for data in ["account-svc/.sqlx", "runtime/.sqlx"] {
        for file in fs::read_dir(root.join(data))? {
            let data: serde_json::Value = serde_json::from_str(&fs::read_to_string(file?.path())?)?;
            let query = data["query"].as_str().context("no query")?;
            queries.push(query.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }
    // Shorter ones first: the same statement with more behind it is another.
    queries.sort_by_key(String::len);
    Ok(queries)
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
    channel
        .queue_delete(QUEUE.into(), QueueDeleteOptions::default())
        .await?;
    connection.close(200, "done".into()).await?;
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
    channel
        .queue_delete(QUEUE.into(), QueueDeleteOptions::default())
        .await?;
    connection.close(200, "done".into()).await?;
    Ok(percentile(&mut times, 50))
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
