//! What the services do in a second, compared with what their parts can do: `make bench`. Prints a table and
//! writes it to `bench.json` in the target directory.
//!
//! `bench LARGE SMALL [ROWS]` takes the names of two databases that the example `fill` has filled, the small one
//! with `FILL_ACCOUNTS=10000`, and the rows to be measured, with commas between: `P1,P4`. Each rate is taken for
//! `BENCH_SECONDS` (10), in `BENCH_ROUNDS` (3) rounds that alternate with its baselines. The programs are those that
//! were built with this one, or in the directory `USHER_PROGRAMS`.

#![expect(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a benchmark prints rates of small numbers"
)]

mod baseline;
mod client;
mod creating;
mod mail;
mod mailing;
mod passwords;
mod processors;
mod reading;
mod relaying;
mod replay;
mod report;
mod system;

use std::{
    env,
    str::FromStr,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use self::{report::Report, system::System};

const ROWS: [&str; 8] = ["P1", "P4", "P5", "P6", "P7", "P8", "P10", "P11"];

/// What is asked for.
struct Settings {
    /// How long each rate is taken.
    time: Duration,
    /// How often it is taken.
    rounds: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = env::args().skip(1);
    let usage = "bench LARGE SMALL [ROWS]";
    let (large, small) = (
        arguments.next().context(usage)?,
        arguments.next().context(usage)?,
    );
    let rows = arguments.next().unwrap_or_else(|| ROWS.join(","));
    for row in rows.split(',') {
        // P9 comes along with the others.
        anyhow::ensure!(ROWS.contains(&row), "{row} is none of {}", ROWS.join(", "));
    }
    let wanted = |row: &str| rows.split(',').any(|wanted| wanted == row);
    let settings = Settings {
        time: Duration::from_secs(number("BENCH_SECONDS", 10)?),
        rounds: number("BENCH_ROUNDS", 3)?,
    };
    let mut report = Report::default();
    let system = System::prepare(&large, &small).await?;

    if wanted("P10") {
        starting(&system, &mut report).await?;
    }
    if wanted("P7") {
        reading::duplicates(&system, &settings, &mut report).await?;
    }
    if wanted("P8") {
        reading::pages(&system, &mut report).await?;
    }
    if wanted("P4") {
        relaying::relay(&system, &settings, &mut report).await?;
    }
    if wanted("P6") {
        mailing::one_mail(&system, &mut report).await?;
    }
    if wanted("P11") {
        passwords::measure(&system, &settings, &mut report).await?;
    }
    if wanted("P1") {
        creating::measure(&system, &settings, &mut report).await?;
    }
    if wanted("P5") {
        mailing::all_mails(&system, &settings, &mut report).await?;
    }
    let fsync = system.fsync().await?;
    system.remove().await?;
    let program = env::current_exe()?;
    let target = program.ancestors().nth(3).context("no target directory")?;
    report.finish(&target.join("bench.json"), &fsync)
}

fn number<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    name: &str,
    default: T,
) -> anyhow::Result<T> {
    env::var(name).map_or(Ok(default), |value| {
        value.parse().with_context(|| name.to_owned())
    })
}

/// P10: from the start of a process to the first readiness. P9: what it holds then.
async fn starting(system: &System, report: &mut Report) -> anyhow::Result<()> {
    for name in ["account-svc", "notify-svc"] {
        let mut times = Vec::new();
        let mut idle = 0.0;
        for round in 0..7 {
            let started = Instant::now();
            let program = match name {
                "account-svc" => system.start_account_svc(&[]).await?,
                _ => {
                    system
                        .start_notify_svc("smtp+plaintext://127.0.0.1:9", &[])
                        .await?
                }
            };
            system.wait_until_ready(name).await?;
            times.push(started.elapsed());
            if round == 0 {
                tokio::time::sleep(Duration::from_secs(3)).await;
                idle = system::mebibytes(&program, "VmRSS")?;
            }
            program.kill().await?;
        }
        let median = milliseconds(percentile(&mut times, 50));
        let what = format!("{name}, start to ready (p50 of 7)");
        report.row("P10", &what, median, "ms", None, "≤ 100 ms");
        report.row(
            "P9",
            &format!("{name}, idle"),
            idle,
            "MiB",
            None,
            "≤ 30 MiB",
        );
    }
    Ok(())
}

/// A percentile of times, which get sorted.
fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
    times.get(index).copied().unwrap_or_default()
}

/// The middle one of some figures.
fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
