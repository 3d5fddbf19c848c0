//! Runs the program as a person at a terminal does, and reads what it prints.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_mins(1);

/// The program with free ports and without settings from the environment of the test.
pub fn usher_local() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_usher-local"));
    command.args(["--account-port=0", "--notify-port=0", "--web-port=0"]);
    for setting in ["DATABASE_URL", "AMQP_URL", "SMTP_URL", "USHER_DATA_DIR"] {
        command.env_remove(setting);
    }
    command
}

/// Runs it to an end that should come at once.
pub fn run_to_end(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

/// A running program. Killed when the test ends early.
pub struct UsherLocal {
    process: Child,
    /// `host:port` of account-svc.
    pub account: String,
    /// `host:port` of the web page.
    pub web: String,
    pub organization_id: String,
}

impl UsherLocal {
    /// Starts it and waits until it says that it is ready.
    pub fn start(data_dir: Option<&Path>) -> Self {
        let mut command = usher_local();
        if let Some(data_dir) = data_dir {
            command.arg("--data-dir").arg(data_dir);
        }
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut started = Self {
            process,
            account: String::new(),
            web: String::new(),
            organization_id: String::new(),
        };
        for line in &mut lines {
            let line = line.unwrap();
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (Some("Web"), Some("page")) => {
                    let url = words.next().unwrap();
                    let address = url.strip_prefix("http://").unwrap();
                    address.clone_into(&mut started.web);
                }
                (Some("account-svc"), Some(address)) => address.clone_into(&mut started.account),
                (Some("Organization"), Some(id)) => id.clone_into(&mut started.organization_id),
                (Some("Ctrl-C"), _) => {
                    // Read on, so that the program never waits for a full pipe.
                    std::thread::spawn(move || lines.for_each(drop));
                    return started;
                }
                _ => {}
            }
        }
        let status = started.process.wait().unwrap();
        panic!("usher-local ended before it was ready: {status}");
    }

    /// Sends a signal and waits for the end; returns whether it ended with success.
    pub async fn end(mut self, signal: Signal) -> bool {
        let process_id = i32::try_from(self.process.id()).unwrap();
        kill(Pid::from_raw(process_id), signal).unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.success();
            }
            assert!(Instant::now() < deadline, "usher-local does not end");
            // Not a wait that blocks: the test's own connections must be able to say goodbye.
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// `GET`: status and body.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let (status, _, body) = exchange(&self.web, &self.web, "GET", path, "").await;
        (status, body)
    }

    /// `GET` with a `Host` header of one's own: status, headers and body.
    pub async fn get_as(&self, host: &str, path: &str) -> (u16, String, String) {
        exchange(&self.web, host, "GET", path, "").await
    }

    /// `POST` of a form: status and body.
    pub async fn post(&self, path: &str, fields: &[(&str, &str)]) -> (u16, String) {
        let form = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        let (status, _, body) = exchange(&self.web, &self.web, "POST", path, &form).await;
        (status, body)
    }

    /// Waits for the first email and returns the path of its page.
    pub async fn first_mail(&self) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (_, inbox) = self.get("/").await;
            if let Some(path) = between(&inbox, "href=\"/mail/", "\"") {
                return format!("/mail/{path}");
            }
            assert!(Instant::now() < deadline, "no email came");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for UsherLocal {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Waits until a process is gone.
pub async fn assert_ends(process_id: Pid) {
    let deadline = Instant::now() + PATIENCE;
    while kill(process_id, None).is_ok() {
        assert!(Instant::now() < deadline, "process {process_id} still runs");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Process of the PostgreSQL that runs on a data directory.
pub fn postgres_process(data_dir: &Path) -> Pid {
    let lock = std::fs::read_to_string(data_dir.join("postgres/postmaster.pid")).unwrap();
    Pid::from_raw(lock.lines().next().unwrap().parse().unwrap())
}

/// The text between two marks.
pub fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(found, _)| found)
}

/// One HTTP/1.1 request on a connection of its own: status, header section and body.
async fn exchange(
    address: &str,
    host: &str,
    method: &str,
    path: &str,
    body: &str,
) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_owned(), body.to_owned())
}
