//! P7: the duplicate check in an organization with a million accounts. P8: pages far down a list.

use std::time::Duration;

use crate::{
    Settings, baseline,
    client::{Client, Person, large_organization},
    milliseconds, percentile,
    report::Report,
    system::{Names, System},
};

/// Checks of each kind for each second that a rate is taken.
const CHECKS_PER_SECOND: u64 = 150;

pub async fn duplicates(
    system: &System,
    settings: &Settings,
    report: &mut Report,
) -> anyhow::Result<()> {
    let checks = (settings.time.as_secs() * CHECKS_PER_SECOND) as usize;
    let large = system.names(&system.account_admin_url).await?;
    let small = system.names(&system.small_admin_url).await?;
    let round_trip = milliseconds(baseline::round_trip(system).await?);
    let on_small = check(system, &system.small_url, &small, checks).await?;
    let on_large = check(system, &system.account_url, &large, checks).await?;
    for ((kind, small), (_, large)) in std::iter::zip(on_small, on_large) {
        let what = format!("CheckDuplicates, {kind}");
        let at = ("at 10,000", small.1, large.1 / small.1);
        report.row(
            "P7",
            &format!("{what}, p99"),
            large.1,
            "ms",
            Some(at),
            "≤ 1.5×",
        );
        let at = ("SELECT 1", round_trip, large.0 / round_trip);
        report.row(
            "P7",
            &format!("{what}, p50"),
            large.0,
            "ms",
            Some(at),
            "≤ 6×",
        );
    }
    Ok(())
}

/// p50 and p99 of each kind of name, in milliseconds.
async fn check(
    system: &System,
    database_url: &str,
    names: &Names,
    checks: usize,
) -> anyhow::Result<Vec<(String, (f64, f64))>> {
    let account_svc = system
        .start_account_svc(&[("DATABASE_URL", database_url)])
        .await?;
    let client = Client::connect(&account_svc.grpc_url).await?;
    // The first calls prepare statements, on each connection.
    for person in names.random.iter().cycle().take(300) {
        client.check_duplicates(person, false).await?;
    }
    let kinds: [(&str, &[Person]); 3] = [
        ("random names", &names.random),
        ("most common names", &names.common),
        ("rarest names", &names.rare),
    ];
    let mut results = Vec::new();
    for (kind, people) in kinds {
        for has_birth_date in [false, true] {
            let mut times: Vec<Duration> = Vec::new();
            for person in people.iter().cycle().take(checks) {
                times.push(client.check_duplicates(person, has_birth_date).await?);
            }
            let with = if has_birth_date { ", birth date" } else { "" };
            let p50 = milliseconds(percentile(&mut times, 50));
            let p99 = milliseconds(percentile(&mut times, 99));
            results.push((format!("{kind}{with}"), (p50, p99)));
        }
    }
    account_svc.kill().await?;
    Ok(results)
}

/// A page of 50 at the start of the list and after 10,000 such pages.
pub async fn pages(system: &System, report: &mut Report) -> anyhow::Result<()> {
    let account_svc = system.start_account_svc(&[]).await?;
    let client = Client::connect(&account_svc.grpc_url).await?;
    let deep = client.token_after(&large_organization(), 500_000).await?;
    let mut medians = Vec::new();
    for token in [String::new(), deep] {
        let mut times = Vec::new();
        for _ in 0..500 {
            times.push(client.list(&token).await?);
        }
        medians.push(milliseconds(percentile(&mut times, 50)));
    }
    let baseline = Some(("page 1", medians[0], medians[1] / medians[0]));
    let what = "ListAccounts, page 10,000, p50";
    report.row("P8", what, medians[1], "ms", baseline, "≤ 1.2×");
    account_svc.kill().await
}
