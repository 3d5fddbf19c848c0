//! What notify-svc keeps to while everything fails around it: `make chaos`. Prints a table, and ends with an error if a
//! rule is broken.
//!
//! `chaos [ROWS]` takes the rows to be run, with commas between, and all of them without:
//!
//! - `failures`: `CHAOS_EMAILS` (20000) emails of all classes through two processes, of which one is killed every
//!   `CHAOS_KILL_SECONDS` (3), into a relay that answers 5 % with 4yz, 1 % with 5yz and 1 % not at all, while the network
//!   to the database swallows everything for `CHAOS_SILENCE_SECONDS` (60). Then each email is accounted for.
//! - `urgent`: an invitation while `CHAOS_WAITING` (100000) bulk emails wait, with the relay's limit and without.
//! - `replicas`: `CHAOS_BACKLOG` (5000) emails, drained by one process and by three.
//!
//! In the last two, the relay takes `CHAOS_RELAY_MILLISECONDS` (20) for an email: more on a machine that is busy otherwise,
//! so that connections are what is short, and not processors.
//!
//! The programs are those that were built with this one, or in the directory `USHER_PROGRAMS`.

#![expect(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "prints rates of small numbers"
)]

mod backlog;
mod events;
mod failures;
mod mails;
mod reconcile;
mod relay;
mod report;
mod system;

use std::{env, str::FromStr};

use anyhow::Context as _;

use self::report::Report;

const ROWS: [&str; 3] = ["failures", "urgent", "replicas"];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let rows = env::args().nth(1).unwrap_or_else(|| ROWS.join(","));
    let mut report = Report::default();
    for row in rows.split(',') {
        let known = ROWS.into_iter().find(|known| *known == row);
        let row = known.with_context(|| format!("{row} is none of {}", ROWS.join(", ")))?;
        report.begin(row);
        match row {
            "failures" => failures::run(&mut report).await?,
            "urgent" => backlog::urgent(&mut report).await?,
            _ => backlog::replicas(&mut report).await?,
        }
    }
    report.finish()
}

/// A number of the environment.
fn number<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    name: &str,
    default: T,
) -> anyhow::Result<T> {
    env::var(name).map_or(Ok(default), |value| {
        value.parse().with_context(|| name.to_owned())
    })
}
