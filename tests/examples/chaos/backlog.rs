//! An urgent email while bulk mail waits, and one process beside three.

use std::time::{Duration, Instant};

use futures::future::try_join_all;
use usher_proto::event::v1::MailClass;

use crate::{
    mails::{Mail, organization},
    number,
    relay::{Behaviour, Relay},
    report::Report,
    system::System,
};

/// Invitations of which the slowest counts.
const INVITATIONS: usize = 20;

/// From the event of an invitation to its acceptance, while bulk mail waits.
pub async fn urgent(report: &mut Report) -> anyhow::Result<()> {
    let waiting = number("CHAOS_WAITING", 100_000)?;
    let system = System::prepare().await?;
    let intake = system
        .fill(waiting, |number| {
            let (organization, recipient) = (organization(number % 5), client(number));
            Mail::new(
                &system.public_key,
                organization,
                MailClass::Bulk,
                &recipient,
            )
        })
        .await?;
    let rate = waiting as f64 / intake.as_secs_f64();
    report.note("bulk emails taken in, relay away", format!("{rate:.0} /s"));
    for limit in [None, Some("50/1s")] {
        let relay = slow_relay().await?;
        let mut settings = vec![("SMTP_URL", relay.url.as_str())];
        settings.extend(limit.map(|limit| ("RELAY_LIMIT", limit)));
        let program = system.start(&settings).await?;
        system.wait_for_accepted(&relay, 200).await?;
        let (bulk, started) = (relay.accepted(), Instant::now());
        let mut times = Vec::new();
        for number in 0..INVITATIONS {
            // Anywhere in the second of the limit.
            tokio::time::sleep(Duration::from_millis(130)).await;
            times.push(invite(&system, &relay, number).await?);
        }
        let rate = (relay.accepted() - bulk) as f64 / started.elapsed().as_secs_f64();
        times.sort_unstable();
        let (middle, slowest) = (times[INVITATIONS / 2], times[INVITATIONS - 1]);
        let name = limit.unwrap_or("none");
        let still = system.count("delivery_queue").await?;
        let beside = format!("limit {name}: {still} wait, beside");
        report.note(&beside, format!("{rate:.0} /s"));
        let what = format!("limit {name}: event to acceptance, p50 of {INVITATIONS}");
        report.note(&what, format!("{middle:.0?}"));
        let what = format!("limit {name}: the slowest");
        let holds = slowest < Duration::from_secs(1);
        report.rule(&what, format!("{slowest:.0?}"), "< 1 s", holds);
        program.kill().await?;
    }
    system.remove().await
}

async fn invite(system: &System, relay: &Relay, number: usize) -> anyhow::Result<Duration> {
    let skip = relay.count();
    let recipient = format!("urgent{skip}x{number}@mail.example");
    let key = &system.public_key;
    let mail = Mail::new(key, organization(9), MailClass::Interactive, &recipient)?;
    let started = Instant::now();
    system.publish(&[mail]).await?;
    while started.elapsed() < Duration::from_secs(30) {
        if let Some(accepted) = relay.accepted_for(&recipient, skip) {
            return Ok(accepted.saturating_duration_since(started));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    anyhow::bail!("an invitation is not sent within 30 s")
}

/// A backlog, drained by one process and by three.
pub async fn replicas(report: &mut Report) -> anyhow::Result<()> {
    let backlog = number("CHAOS_BACKLOG", 5_000)?;
    let mut rates = Vec::new();
    for replicas in [1, 3] {
        let system = System::prepare().await?;
        system
            .fill(backlog, |number| {
                let (organization, recipient) = (organization(number % 5), client(number));
                let class = MailClass::Interactive;
                Mail::new(&system.public_key, organization, class, &recipient)
            })
            .await?;
        let relay = slow_relay().await?;
        let settings = [
            ("SMTP_URL", relay.url.as_str()),
            ("SMTP_MAX_CONNECTIONS", "4"),
        ];
        let started = Instant::now();
        let programs = try_join_all((0..replicas).map(|_| system.start(&settings))).await?;
        system.wait_for_accepted(&relay, backlog).await?;
        let rate = backlog as f64 / started.elapsed().as_secs_f64();
        let what = format!("{backlog} emails drained by {replicas}, 4 connections each");
        report.note(&what, format!("{rate:.0} /s"));
        rates.push(rate);
        for program in programs {
            program.stop().await?;
        }
        system.remove().await?;
    }
    let times = rates[1] / rates[0];
    let value = format!("{times:.2}");
    report.rule("three beside one", value, "> 1.5", times > 1.5);
    Ok(())
}

/// Accepts everything, and takes so long that connections are what is short.
async fn slow_relay() -> anyhow::Result<Relay> {
    let delay = Duration::from_millis(number("CHAOS_RELAY_MILLISECONDS", 20)?);
    Relay::start(Behaviour {
        delay,
        ..Default::default()
    })
    .await
}

fn client(number: usize) -> String {
    format!("client{number}@mail{}.example", number % 50)
}
