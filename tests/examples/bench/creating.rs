//! P1: `CreateAccount` compared with pgbench, in turn. P9: the memory that it takes.

use std::time::Duration;

use usher_tests::Program;

use crate::{
    Settings,
    baseline::{self, NINE_STATEMENTS, ONE_STATEMENT, Rate},
    client::{self, Client},
    median,
    processors::Processes,
    replay::{Recorder, Replay},
    report::Report,
    system::{System, mebibytes},
};

/// Callers at the same time.
const CALLERS: usize = 32;
/// Runs before anything is measured: connections are made, statements prepared.
const WARM_UP: Duration = Duration::from_secs(3);

/// One figure of several.
type Figure<T> = fn(&T) -> f64;

/// What one round has measured.
struct Round {
    ours: Rate,
    own: Rate,
    limit: Rate,
    nine: Rate,
    memory: [f64; 2],
}

pub async fn measure(
    system: &System,
    settings: &Settings,
    report: &mut Report,
) -> anyhow::Result<()> {
    // As many as the fastest replay could use up.
    let expected = warm_up_rate(system).await? * settings.time.as_secs_f64();
    let count = (expected * 2.0) as usize * settings.rounds;
    let replay = record(system, count).await?;
    report.note(
        "P1",
        "round trips to PostgreSQL",
        &format!("{:.2} a create", replay.round_trips()),
    );
    let mut rounds = Vec::new();
    for number in 1..=settings.rounds {
        let name = |what: &str| format!("processors, round {number}, {what}");
        let (ours, memory) = ours(system, settings, &name("service"), report).await?;
        let idle = Processes::new(&[])?;
        let start = idle.sample()?;
        let own = replay.run(CALLERS, settings.time)?;
        report.note("P1", &name("own"), &idle.since(&start)?.shares());
        system.empty_outbox().await?;
        let start = idle.sample()?;
        let limit = baseline::limit(system, ONE_STATEMENT, CALLERS, settings.time).await?;
        report.note("P1", &name("limit"), &idle.since(&start)?.shares());
        let nine = baseline::limit(system, NINE_STATEMENTS, CALLERS, settings.time).await?;
        println!(
            "P1   round {number}: service {:.0}/s, own {:.0}/s, limit {:.0}/s, limit in nine statements {:.0}/s",
            ours.per_second, own.per_second, limit.per_second, nine.per_second
        );
        rounds.push(Round {
            ours,
            own,
            limit,
            nine,
            memory,
        });
    }
    tell(&rounds, report);
    Ok(())
}

/// The figures, each the median of all rounds; ratios are taken in each round.
fn tell(rounds: &[Round], report: &mut Report) {
    let of = |figure: fn(&Round) -> f64| median(rounds.iter().map(figure));
    let what = format!("CreateAccount, {CALLERS} callers");
    let rate = of(|round| round.ours.per_second);
    let compared: [(&str, Figure<Round>, &str); 3] = [
        ("limit", |round| round.limit.per_second, "≥ 0.5"),
        ("limit, nine statements", |round| round.nine.per_second, "-"),
        ("own statements", |round| round.own.per_second, "≥ 0.75"),
    ];
    for (name, figure, goal) in compared {
        let ratio = median(
            rounds
                .iter()
                .map(|round| round.ours.per_second / figure(round)),
        );
        let baseline = Some((name, of(figure), ratio));
        report.row("P1", &what, rate, "/s", baseline, goal);
    }
    let compared: [(&str, Figure<Rate>, &str); 2] = [
        ("p50", |rate| rate.p50, "-"),
        ("p99", |rate| rate.p99, "≤ 2×"),
    ];
    for (name, figure, goal) in compared {
        let own = median(rounds.iter().map(|round| figure(&round.own)));
        let ratio = rounds
            .iter()
            .map(|round| figure(&round.ours) / figure(&round.own));
        let baseline = Some(("own statements", own, median(ratio)));
        let ours = median(rounds.iter().map(|round| figure(&round.ours)));
        report.row("P1", &format!("{what}, {name}"), ours, "ms", baseline, goal);
    }
    for (index, name) in ["under P1", "under P1, highest"].iter().enumerate() {
        let memory = median(rounds.iter().map(|round| round.memory[index]));
        let what = format!("account-svc, {name}");
        report.row("P9", &what, memory, "MiB", None, "≤ 80 MiB");
    }
}

async fn warm_up_rate(system: &System) -> anyhow::Result<f64> {
    let account_svc = system.start_account_svc(&[]).await?;
    let client = Client::connect(&account_svc.grpc_url).await?;
    client.create_for(CALLERS, WARM_UP).await?;
    let times = client.create_for(CALLERS, WARM_UP).await?;
    system.wait_for_empty_outbox().await?;
    account_svc.kill().await?;
    Ok(times.len() as f64 / WARM_UP.as_secs_f64())
}

/// The service's rate, and its memory then.
async fn ours(
    system: &System,
    settings: &Settings,
    name: &str,
    report: &mut Report,
) -> anyhow::Result<(Rate, [f64; 2])> {
    let account_svc = system.start_account_svc(&[]).await?;
    let client = Client::connect(&account_svc.grpc_url).await?;
    client.create_for(CALLERS, WARM_UP).await?;
    let processes = Processes::new(&[("account-svc", id(&account_svc)?)])?;
    let start = processes.sample()?;
    let times = client.create_for(CALLERS, settings.time).await?;
    let usage = processes.since(&start)?;
    let creates = times.len() as f64;
    let each = |name: &str| usage.seconds(name) / creates * 1e6;
    let note = format!(
        "{}; of a create: account-svc {:.0} µs, PostgreSQL {:.0} µs, RabbitMQ {:.0} µs",
        usage.shares(),
        each("account-svc"),
        each("PostgreSQL"),
        each("RabbitMQ"),
    );
    report.note("P1", name, &note);
    let memory = [
        mebibytes(&account_svc, "VmRSS")?,
        mebibytes(&account_svc, "VmHWM")?,
    ];
    system.wait_for_empty_outbox().await?;
    // Its relay would take what the replay puts into the outbox.
    account_svc.kill().await?;
    Ok((Rate::new(times, settings.time), memory))
}

fn id(program: &Program) -> anyhow::Result<u32> {
    program
        .id()
        .ok_or_else(|| anyhow::anyhow!("the service has ended"))
}

/// Records the transactions of so many creates.
async fn record(system: &System, count: usize) -> anyhow::Result<Replay> {
    let organization = client::large_organization();
    let recorder = Recorder::start(&system.account_url, &organization).await?;
    let account_svc = system
        .start_account_svc(&[("DATABASE_URL", &recorder.url)])
        .await?;
    let client = Client::connect(&account_svc.grpc_url).await?;
    while recorder.count() < count {
        client.create_for(CALLERS, Duration::from_secs(1)).await?;
    }
    account_svc.kill().await?;
    system.vacuum().await?;
    Ok(recorder.finish())
}
