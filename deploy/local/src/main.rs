//! Usher in one process, for trying it out: both services, a private PostgreSQL, an inbox that shows the
//! emails, and a portal in miniature behind their links.

mod config;
mod console;
mod data_dir;
mod databases;
mod demo;
mod listeners;
mod local;
mod mailbox;
mod postgres;
mod privileges;
mod readable_time;
mod services;
mod web;

use std::process::ExitCode;

use clap::Parser as _;

use config::Args;

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            console::failure(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    // Before the runtime starts its threads: each of them has an identity of its own.
    privileges::drop_root(args.data_dir.as_deref())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(local::run(args))
}
