//! Starts the services' programs and reads their logs.

use std::{
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::{Child, Command},
    sync::oneshot,
};

use crate::Database;

/// Longer than a start takes unless it hangs.
const START: Duration = Duration::from_secs(30);
/// Longer than a stop takes unless it hangs.
const STOP: Duration = Duration::from_mins(1);

/// A running service. It is killed when this is dropped.
#[derive(Debug)]
pub struct Program {
    /// Where its gRPC server listens, for example `http://127.0.0.1:40001`.
    pub grpc_url: String,
    child: Child,
    log: Log,
}

/// The lines that a program has written so far.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Program {
    /// Starts `name serve` with the environment variables `settings`, on ports that are free and with callers
    /// that are not authenticated unless they say otherwise, and waits until it serves.
    ///
    /// # Errors
    /// If the program was not built, or ends; with what it said.
    pub async fn serve(name: &str, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let mut child = Command::new(path_of(name)?)
            .arg("serve")
            .env("GRPC_LISTEN", "127.0.0.1:0")
            .env("ADMIN_LISTEN", "127.0.0.1:0")
            .env("ALLOW_UNAUTHENTICATED", "true")
            .env("PORTAL_ORIGINS", "https://portal.example")
            .env("MAIL_FROM", "no-reply@mail.example")
            .env("SMTP_EHLO_NAME", "mail.example")
            .envs(settings.iter().copied())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| name.to_owned())?;
        let stderr = child.stderr.take().context("no pipe")?;
        let log = Log::default();
        let (serves, address) = oneshot::channel();
        tokio::spawn(read(stderr, log.clone(), serves));
        let Ok(Ok(address)) = tokio::time::timeout(START, address).await else {
            bail!("{name} does not serve:\n{}", log.lines().join("\n"));
        };
        Ok(Self {
            grpc_url: format!("http://{address}"),
            child,
            log,
        })
    }

    /// Migrates a database as its owner, and serves its service with the service's own login.
    ///
    /// # Errors
    /// As [`Program::run`] and [`Program::serve`].
    pub async fn migrate_and_serve(
        database: &Database,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let name = database.service().program();
        let owner_url = database.owner_url();
        Self::run(name, &["migrate"], &[("DATABASE_URL", owner_url.as_str())]).await?;
        let service_url = database.service_url();
        let database_url = [("DATABASE_URL", service_url.as_str())];
        Self::serve(name, &[&database_url, settings].concat()).await
    }

    /// Runs `name` with `arguments` to its end and returns what it printed.
    ///
    /// # Errors
    /// If it was not built, or fails.
    pub async fn run(
        name: &str,
        arguments: &[&str],
        settings: &[(&str, &str)],
    ) -> anyhow::Result<String> {
        let output = Command::new(path_of(name)?)
            .args(arguments)
            .envs(settings.iter().copied())
            .output()
            .await
            .with_context(|| name.to_owned())?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            bail!("{name} {}: {errors}", arguments.join(" "));
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs `name serve` with the environment variables `settings` and no others, which it refuses; returns what it
    /// said.
    ///
    /// # Errors
    /// If it was not built, or serves.
    pub async fn refuse(name: &str, settings: &[(&str, &str)]) -> anyhow::Result<String> {
        let run = Command::new(path_of(name)?)
            .arg("serve")
            .env_clear()
            .envs(settings.iter().copied())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(START, run)
            .await
            .with_context(|| format!("{name} serves"))??;
        anyhow::ensure!(!output.status.success(), "{name} ended without an error");
        Ok(String::from_utf8(output.stderr)?)
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// What it has logged until now, line by line.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.log.lines()
    }

    /// Asks it to stop, as an operator does, and waits until it has ended.
    ///
    /// # Errors
    /// If it has ended before, or does not end.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let id = self.child.id().context("it has ended")?;
        kill(Pid::from_raw(id.try_into()?), Signal::SIGTERM)?;
        let ended = tokio::time::timeout(STOP, self.child.wait());
        ended.await.context("it does not stop")??;
        Ok(())
    }

    /// Kills it, and waits until it is gone.
    ///
    /// # Errors
    /// If the system refuses.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }
}

impl Log {
    fn lines(&self) -> Vec<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn push(&self, line: String) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(line);
    }
}

/// A pair of keys for sealing tokens: what notify-svc gets, and what account-svc gets.
///
/// # Errors
/// If notify-svc was not built, or prints something else.
pub async fn token_keys() -> anyhow::Result<(String, String)> {
    let printed = Program::run("notify-svc", &["generate-key"], &[]).await?;
    let value_of = |name: &str| {
        printed
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .map(str::to_owned)
            .with_context(|| format!("notify-svc generate-key prints no {name}"))
    };
    Ok((
        value_of("TOKEN_PRIVATE_KEY")?,
        value_of("TOKEN_PUBLIC_KEY")?,
    ))
}

/// Keeps every line, and tells the address in the line that says that the service serves.
async fn read(stderr: impl AsyncRead + Unpin, log: Log, serves: oneshot::Sender<String>) {
    let mut serves = Some(serves);
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some(address) = address_in(&line)
            && let Some(serves) = serves.take()
        {
            let _ = serves.send(address);
        }
        log.push(line);
    }
}

fn address_in(line: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line).ok()?;
    Some(line.get("grpc.address")?.as_str()?.to_owned())
}

/// The program in the directory `USHER_PROGRAMS`, or the one that was built with this one, which is in a directory
/// below it (`deps` or `examples`).
fn path_of(name: &str) -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe()?;
    let directory = match std::env::var_os("USHER_PROGRAMS") {
        Some(directory) => PathBuf::from(directory),
        None => this
            .ancestors()
            .nth(2)
            .context("no target directory")?
            .to_owned(),
    };
    let path = directory.join(name);
    if !path.is_file() {
        bail!(
            "{} is missing: run `cargo build -p account-svc -p notify-svc` (with --release if this is)",
            path.display()
        );
    }
    Ok(path)
}
