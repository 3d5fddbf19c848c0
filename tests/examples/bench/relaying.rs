//! P4: the relay with a full outbox, compared with lapin alone.

use usher_tests::BrokerNames;

use crate::{Settings, baseline, median, processors::Processes, report::Report, system::System};

/// Events in a second that no relay reaches.
const MOST: u32 = 10_000;

pub async fn relay(
    system: &System,
    settings: &Settings,
    report: &mut Report,
) -> anyhow::Result<()> {
    let events = MOST * u32::try_from(settings.time.as_secs())?;
    let mut rates = Vec::new();
    for number in 1..=settings.rounds {
        let raw = baseline::publish(events).await?;
        let ours = one_round(system, events, number, report).await?;
        rates.push((ours, raw));
    }
    let ours = median(rates.iter().map(|rate| rate.0));
    let raw = median(rates.iter().map(|rate| rate.1));
    let ratio = median(rates.iter().map(|(ours, raw)| ours / raw));
    let baseline = Some(("lapin, 500 outstanding", raw, ratio));
    report.row(
        "P4",
        "relay, events of 600 B",
        ours,
        "/s",
        baseline,
        "≥ 0.8",
    );
    Ok(())
}

/// Events a second that leave a full outbox after account-svc has started.
async fn one_round(
    system: &System,
    events: u32,
    number: usize,
    report: &mut Report,
) -> anyhow::Result<f64> {
    system.fill_outbox(events).await?;
    let names = BrokerNames::create("bench-relay");
    let prefix = [("AMQP_PREFIX", names.prefix.as_str())];
    let account_svc = system.start_account_svc(&prefix).await?;
    // The first batch declares the queues.
    let process = account_svc.id().unwrap_or_default();
    let processes = Processes::new(&[("account-svc", process)])?;
    let (first, started) = system.published_at_least(1).await?;
    let start = processes.sample()?;
    let (last, ended) = system.published_at_least(u64::from(events)).await?;
    let usage = processes.since(&start)?;
    let count = (last - first) as f64;
    let what = format!("processors, round {number}");
    let each = |name: &str| usage.seconds(name) / count * 1e6;
    let note = format!(
        "{}; of an event: account-svc {:.0} µs, PostgreSQL {:.0} µs, RabbitMQ {:.0} µs",
        usage.shares(),
        each("account-svc"),
        each("PostgreSQL"),
        each("RabbitMQ"),
    );
    report.note("P4", &what, &note);
    account_svc.kill().await?;
    system.empty_outbox().await?;
    names.remove().await?;
    Ok(count / (ended - started).as_secs_f64())
}
