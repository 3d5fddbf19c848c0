//! What the services do in a second, compared with what their parts can do: `make bench`. Prints a table and
//! writes it to `target/bench.json`. Takes the name of a database that the example `fill` has filled.

#![expect(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "a benchmark prints rates of small numbers"
)]

mod baseline;
mod client;
mod mail;
mod report;
mod system;

use std::time::{Duration, Instant};

use anyhow::Context as _;
use usher_tests::Program;

use self::{client::Client, report::Report, system::System};

/// Callers of `CreateAccount` at the same time.
const CALLERS: usize = 32;
/// How long each rate is taken.
const ROUND: Duration = Duration::from_secs(15);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let database = std::env::args()
        .nth(1)
        .context("name a database that `fill` has filled")?;
    let mut report = Report::default();
    let mut system = System::prepare(&database).await?;

    starting(&mut system, &mut report).await?;
    let account_svc = system.start_account_svc().await?;
    let client = Client::connect(&account_svc.grpc_url).await?;
    idle_memory(&account_svc, "account-svc", &mut report).await?;
    duplicates(&system, &client, &mut report).await?;
    pages(&client, &mut report).await?;
    let waiting = creating(&system, account_svc, &client, &mut report).await?;
    relaying(&system, &mut report).await?;
    mailing(&mut system, waiting, &mut report).await?;
    one_mail(&mut system, &mut report).await?;
    let fsync = system.fsync().await?;
    system.remove().await?;
    report.finish(&fsync)
}

/// P10: from the start of a process to the first readiness.
async fn starting(system: &mut System, report: &mut Report) -> anyhow::Result<()> {
    for name in ["account-svc", "notify-svc"] {
        let mut times = Vec::new();
        for _ in 0..7 {
            let started = Instant::now();
            let program = match name {
                "account-svc" => system.start_account_svc().await?,
                _ => {
                    system
                        .start_notify_svc("smtp+plaintext://127.0.0.1:9")
                        .await?
                }
            };
            system.wait_until_ready(name).await?;
            times.push(started.elapsed());
            program.kill().await?;
        }
        let median = milliseconds(percentile(&mut times, 50));
        report.row(
            "P10",
            &format!("{name}, start to ready (p50 of 7)"),
            median,
            "ms",
            None,
            "≤ 100 ms",
        );
    }
    Ok(())
}

async fn idle_memory(program: &Program, name: &str, report: &mut Report) -> anyhow::Result<()> {
    tokio::time::sleep(Duration::from_secs(2)).await;
    let idle = mebibytes(program, "VmRSS")?;
    report.row(
        "P9",
        &format!("{name}, idle"),
        idle,
        "MiB",
        None,
        "≤ 30 MiB",
    );
    Ok(())
}

/// P7: the duplicate check in the large organization, compared with one of 10,000.
async fn duplicates(system: &System, client: &Client, report: &mut Report) -> anyhow::Result<()> {
    let small = system.organization_of_10_000().await?;
    let (mut p50, mut p99) = (Vec::new(), Vec::new());
    for organization_id in [small, client::large_organization()] {
        let mut times = Vec::new();
        for number in 0..3_000 {
            times.push(client.check_duplicates(&organization_id, number).await?);
        }
        // The first calls prepare statements.
        times.drain(..500);
        p50.push(milliseconds(percentile(&mut times, 50)));
        p99.push(milliseconds(percentile(&mut times, 99)));
    }
    let ratio = Some(("at 10,000", p99[0], p99[1] / p99[0]));
    report.row(
        "P7",
        "CheckDuplicates at 1,000,000, p99",
        p99[1],
        "ms",
        ratio,
        "≤ 1.5×",
    );
    let round_trip = milliseconds(baseline::round_trip(system).await?);
    let ratio = Some(("SELECT 1", round_trip, p50[1] / round_trip));
    let what = "CheckDuplicates at 1,000,000, p50";
    report.row("P7", what, p50[1], "ms", ratio, "≤ 6×");
    Ok(())
}

/// P8: a page of 50 at the start of the list and after 10,000 such pages.
async fn pages(client: &Client, report: &mut Report) -> anyhow::Result<()> {
    let deep = client.token_after(500_000).await?;
    let mut medians = Vec::new();
    for token in [String::new(), deep] {
        let mut times = Vec::new();
        for _ in 0..500 {
            times.push(client.list(&token).await?);
        }
        medians.push(milliseconds(percentile(&mut times, 50)));
    }
    let ratio = Some(("page 1", medians[0], medians[1] / medians[0]));
    report.row(
        "P8",
        "ListAccounts, page 10,000, p50",
        medians[1],
        "ms",
        ratio,
        "≤ 1.2×",
    );
    Ok(())
}

/// P1: `CreateAccount` compared with pgbench, in turn. Returns the number of invitations that wait in the queue.
async fn creating(
    system: &System,
    account_svc: Program,
    client: &Client,
    report: &mut Report,
) -> anyhow::Result<usize> {
    let warm_up = client.create_for(CALLERS, Duration::from_secs(3)).await?;
    let mut ours = client.create_for(CALLERS, ROUND).await?;
    let rate = ours.len() as f64 / ROUND.as_secs_f64();
    let memory = mebibytes(&account_svc, "VmHWM")?;
    system.wait_for_empty_outbox().await?;
    // Its relay would take what pgbench puts into the outbox.
    account_svc.kill().await?;
    let own = baseline::own_statements(system, CALLERS, ROUND)?;
    system.empty_outbox().await?;
    let limit = baseline::limit(system, CALLERS, ROUND).await?;
    let what = format!("CreateAccount, {CALLERS} callers");
    report.row(
        "P1",
        &what,
        rate,
        "/s",
        Some(("limit", limit.rate, rate / limit.rate)),
        "≥ 0.5",
    );
    report.row(
        "P1",
        &what,
        rate,
        "/s",
        Some(("own statements", own.rate, rate / own.rate)),
        "≥ 0.75",
    );
    let p99 = milliseconds(percentile(&mut ours, 99));
    let ratio = Some(("own statements", own.p99, p99 / own.p99));
    report.row("P1", &format!("{what}, p99"), p99, "ms", ratio, "≤ 2×");
    report.row(
        "P9",
        "account-svc, after P1",
        memory,
        "MiB",
        None,
        "≤ 80 MiB",
    );
    Ok(warm_up.len() + ours.len())
}

/// P4: the relay with a full outbox, compared with lapin alone.
async fn relaying(system: &System, report: &mut Report) -> anyhow::Result<()> {
    const EVENTS: u32 = 100_000;
    let raw = baseline::publish(EVENTS).await?;
    let ours = system.relay(EVENTS).await?;
    let ratio = Some(("lapin, 500 outstanding", raw, ours / raw));
    report.row("P4", "relay, events of 600 B", ours, "/s", ratio, "≥ 0.8");
    Ok(())
}

/// P5: from the queue to smtp-sink, compared with smtp-source.
async fn mailing(system: &mut System, waiting: usize, report: &mut Report) -> anyhow::Result<()> {
    let sink = mail::Sink::start()?;
    let notify_svc = system.start_notify_svc(&sink.url()).await?;
    let started = Instant::now();
    system.wait_for_sent(waiting).await?;
    let ours = waiting as f64 / started.elapsed().as_secs_f64();
    let baseline = sink.smtp_source(waiting)?;
    let ratio = Some(("smtp-source", baseline, ours / baseline));
    report.row(
        "P5",
        &format!("queue to relay, {waiting} mails"),
        ours,
        "/s",
        ratio,
        "≥ 0.4",
    );
    report.row(
        "P9",
        "notify-svc, after P5",
        mebibytes(&notify_svc, "VmHWM")?,
        "MiB",
        None,
        "≤ 80 MiB",
    );
    notify_svc.kill().await
}

/// P6: from the answer of `CreateAccount` to the relay's, on an idle system.
async fn one_mail(system: &mut System, report: &mut Report) -> anyhow::Result<()> {
    let mut inbox = mail::Inbox::start().await?;
    let account_svc = system.start_account_svc().await?;
    let notify_svc = system.start_notify_svc(&inbox.url).await?;
    system.wait_until_ready("notify-svc").await?;
    idle_memory(&notify_svc, "notify-svc", report).await?;
    let client = Client::connect(&account_svc.grpc_url).await?;
    let mut times = Vec::new();
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        client.create().await?;
        let answered = Instant::now();
        let accepted = inbox.next().await?;
        times.push(accepted.saturating_duration_since(answered));
    }
    let parts =
        baseline::commit(system).await? + baseline::one_publish().await? + inbox.exchange().await?;
    let p50 = milliseconds(percentile(&mut times, 50));
    let parts = milliseconds(parts);
    let ratio = Some(("commit + publish + SMTP", parts, p50 / parts));
    report.row(
        "P6",
        "CreateAccount answered to mail accepted, p50",
        p50,
        "ms",
        ratio,
        "≤ 3×",
    );
    let p99 = milliseconds(percentile(&mut times, 99));
    let ratio = Some(("commit + publish + SMTP", parts, p99 / parts));
    let what = "CreateAccount answered to mail accepted, p99";
    report.row("P6", what, p99, "ms", ratio, "≤ 10×");
    account_svc.kill().await?;
    notify_svc.kill().await
}

/// A percentile of times, which get sorted.
fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
    times.get(index).copied().unwrap_or_default()
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A figure of `/proc/<pid>/status`.
fn mebibytes(program: &Program, name: &str) -> anyhow::Result<f64> {
    let id = program.id().context("it has ended")?;
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status
        .lines()
        .find(|line| line.starts_with(name))
        .context("no such figure")?;
    let kibibytes: f64 = line
        .split_whitespace()
        .nth(1)
        .context("no figure")?
        .parse()?;
    Ok(kibibytes / 1024.0)
}
