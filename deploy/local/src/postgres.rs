//! A private PostgreSQL: a child process that is reached through a socket in a directory of its own, so
//! that it needs no port and no password and nobody else on the machine reaches it.

pub(crate) mod programs;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{Connection as _, PgConnection};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{Instant, sleep};
use url::Url;

use programs::Programs;

/// Longest that the server may take to start, also after a crash.
const START_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a server of an earlier run may take to finish its shutdown.
const PREDECESSOR_TIMEOUT: Duration = Duration::from_secs(15);
/// Between two looks at something that is about to happen.
const POLL: Duration = Duration::from_millis(50);
/// How much of the server's log a person is shown.
const LOG_TAIL_LINES: usize = 12;

/// Runs the server, and stops it as soon as the standard input ends: the pipe is closed when this program
/// ends, however it ends, so that no server stays behind a `kill -9`. The last step removes what was made
/// for this run only.
const SUPERVISOR: &str = r#"
trap '' HUP INT TERM
exec 3<&0
"$@" 3<&- &
server=$!
{
  cat <&3 >/dev/null
  kill -INT "$server" 2>/dev/null
  while kill -0 "$server" 2>/dev/null; do sleep 0.1; done
  rm -rf "$USHER_RUN_DIR"
} &
wait "$server"
"#;

/// A running server. Dropping it stops the server too, but does not wait for it.
#[derive(Debug)]
pub(crate) struct Postgres {
    supervisor: Child,
    /// Kept apart from `supervisor`, whose `wait` would close it.
    lifeline: Option<ChildStdin>,
    socket_dir: PathBuf,
    log: PathBuf,
}

impl Postgres {
    /// Starts a server on the cluster `data_dir/postgres`, which is created first if there is none.
    /// `run_dir` holds its socket and is removed at the end, however this program ends.
    ///
    /// # Errors
    ///
    /// If the server does not start: with the end of its log.
    pub(crate) async fn start(
        programs: &Programs,
        data_dir: &Path,
        run_dir: &Path,
    ) -> anyhow::Result<Self> {
        let cluster = data_dir.join("postgres");
        if !cluster.join("PG_VERSION").exists() {
            create_cluster(programs, &cluster).await?;
        }
        wait_for_predecessor(&cluster).await?;

        let log = data_dir.join("postgres.log");
        let log_file =
            File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut supervisor = Command::new("/bin/sh")
            .args(["-c", SUPERVISOR, "sh"])
            .arg(&programs.postgres)
            .arg("-D")
            .arg(&cluster)
            .arg("-k")
            .arg(run_dir)
            .args(["-c", "listen_addresses=", "-c", "max_connections=100"])
            .env("USHER_RUN_DIR", run_dir)
            .current_dir(data_dir)
            .stdin(Stdio::piped())
            .stdout(log_file.try_clone()?)
            .stderr(log_file)
            // Ctrl-C in a terminal goes to the whole group; the server must outlive the services.
            .process_group(0)
            .spawn()
            .context("cannot start /bin/sh")?;
        let mut server = Self {
            lifeline: supervisor.stdin.take(),
            supervisor,
            socket_dir: run_dir.to_owned(),
            log,
        };
        server.wait_until_ready().await?;
        Ok(server)
    }

    /// URL of the server, with its superuser, who makes roles and databases and does nothing else.
    ///
    /// # Errors
    ///
    /// If the path of the socket cannot be written as a URL.
    pub(crate) fn url(&self) -> anyhow::Result<SecretString> {
        // There are no passwords; naming one keeps the client from looking for it in ~/.pgpass.
        let mut url = Url::parse("postgres://postgres:unused@localhost/postgres")?;
        let socket_dir = self
            .socket_dir
            .to_str()
            .context("the path of the temporary directory is not UTF-8")?;
        url.query_pairs_mut().append_pair("host", socket_dir);
        Ok(SecretString::from(url.to_string()))
    }

    /// Waits until the server has ended by itself, which it should not, and says why.
    pub(crate) async fn ended(&mut self) -> anyhow::Error {
        let status = self.supervisor.wait().await;
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        anyhow::anyhow!("PostgreSQL ended ({status}). Its log:\n{}", self.log_tail())
    }

    /// Stops the server and waits until it has written everything.
    pub(crate) async fn stop(mut self) {
        drop(self.lifeline.take());
        if let Err(error) = self.supervisor.wait().await {
            tracing::warn!(%error, "cannot wait for PostgreSQL");
        }
    }

    async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let url = self.url()?;
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(status) = self.supervisor.try_wait()? {
                bail!(
                    "PostgreSQL did not start ({status}). Its log:\n{}",
                    self.log_tail()
                );
            }
            if let Ok(connection) = PgConnection::connect(url.expose_secret()).await {
                let _ = connection.close().await;
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "PostgreSQL is not ready after {} s. Its log:\n{}",
                START_TIMEOUT.as_secs(),
                self.log_tail()
            );
            sleep(POLL).await;
        }
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let start = lines.len().saturating_sub(LOG_TAIL_LINES);
        lines[start..].join("\n")
    }
}

async fn create_cluster(programs: &Programs, cluster: &Path) -> anyhow::Result<()> {
    // A cluster that was being made when the machine went down is no cluster.
    if cluster.exists() {
        fs::remove_dir_all(cluster)?;
    }
    let locale = if cfg!(target_os = "macos") {
        "en_US.UTF-8"
    } else {
        "C.UTF-8"
    };
    let output = Command::new(&programs.initdb)
        .arg("-D")
        .arg(cluster)
        .args(["-U", "postgres", "--auth=trust", "--encoding=UTF8"])
        .args([&format!("--locale={locale}"), "--no-sync"])
        .current_dir("/")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("cannot run {}", programs.initdb.display()))?;
    ensure!(
        output.status.success(),
        "{} failed ({}):\n{}",
        programs.initdb.display(),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim_end()
    );
    Ok(())
}

/// Waits for the server of an earlier run that was killed: it is told to stop, but takes its time.
async fn wait_for_predecessor(cluster: &Path) -> anyhow::Result<()> {
    let deadline = Instant::now() + PREDECESSOR_TIMEOUT;
    while let Some(process_id) = running_server(cluster) {
        ensure!(
            Instant::now() < deadline,
            "{} is in use by another PostgreSQL, process {process_id}: stop the other usher-local, or \
             choose another directory with --data-dir",
            cluster.display()
        );
        sleep(POLL).await;
    }
    Ok(())
}

/// Process of the server that runs on a cluster, as its lock file says.
fn running_server(cluster: &Path) -> Option<i32> {
    let lock = fs::read_to_string(cluster.join("postmaster.pid")).ok()?;
    let process_id: i32 = lock.lines().next()?.trim().parse().ok()?;
    let process = nix::unistd::Pid::from_raw(process_id);
    let is_running = nix::sys::signal::kill(process, None).is_ok();
    is_running.then_some(process_id)
}
