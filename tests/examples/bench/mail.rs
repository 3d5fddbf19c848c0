//! Where mail goes: Debian's smtp-sink for rates, and a server that knows the moment for single mails.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

/// About what an invitation has, in bytes; it is measured on the way.
const SIZE: usize = 9_000;
/// As notify-svc has by default.
const CONNECTIONS: usize = 16;

/// A running smtp-sink.
pub struct Sink {
    address: String,
    process: Child,
}

impl Sink {
    pub fn start() -> anyhow::Result<Self> {
        let address = std::net::TcpListener::bind("127.0.0.1:0")?
            .local_addr()?
            .to_string();
        let process = Command::new("smtp-sink")
            .args(["-u", "nobody", &address, "200"])
            .stdout(Stdio::null())
            .spawn()
            .context("smtp-sink: install Debian's package postfix")?;
        Ok(Self { address, process })
    }

    pub fn url(&self) -> String {
        format!("smtp+plaintext://{}", self.address)
    }

    /// Mails a second of smtp-source into the same sink.
    pub fn smtp_source(&self, mails: usize) -> anyhow::Result<f64> {
        let started = Instant::now();
        let status = Command::new("smtp-source")
            .args([
                "-d",
                "-s",
                &CONNECTIONS.to_string(),
                "-m",
                &mails.to_string(),
            ])
            .args([
                "-l",
                &SIZE.to_string(),
                "-t",
                "client@mail.example",
                &self.address,
            ])
            .status()?;
        anyhow::ensure!(status.success(), "smtp-source failed");
        Ok(mails as f64 / started.elapsed().as_secs_f64())
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A mail that was accepted.
pub struct Mail {
    /// When.
    pub accepted: Instant,
    /// The token in its link.
    pub token: Option<String>,
}

/// A server that tells when it has accepted a mail.
pub struct Inbox {
    pub url: String,
    address: String,
    accepted: mpsc::UnboundedReceiver<Mail>,
}

impl Inbox {
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let (sender, accepted) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, sender.clone()));
            }
        });
        Ok(Self {
            url: format!("smtp+plaintext://{address}"),
            address,
            accepted,
        })
    }

    /// Waits for the next mail.
    pub async fn next(&mut self) -> anyhow::Result<Mail> {
        let next = tokio::time::timeout(Duration::from_secs(20), self.accepted.recv());
        next.await.context("no mail came")?.context("closed")
    }

    /// The time of one exchange on an open connection: half of 60 take less.
    pub async fn exchange(&mut self) -> anyhow::Result<Duration> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let body = ("x".repeat(70) + "\r\n").repeat(SIZE / 72) + ".\r\n";
        let mut times = Vec::new();
        for _ in 0..60 {
            let started = Instant::now();
            for command in [
                "MAIL FROM:<a@b.example>\r\n",
                "RCPT TO:<c@d.example>\r\n",
                "DATA\r\n",
                &body,
            ] {
                stream.write_all(command.as_bytes()).await?;
                line.clear();
                stream.read_line(&mut line).await?;
            }
            times.push(started.elapsed());
        }
        Ok(crate::percentile(&mut times, 50))
    }
}

async fn converse(stream: TcpStream, mails: mpsc::UnboundedSender<Mail>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 ready\r\n").await?;
    let (mut content, mut line) = (None::<String>, String::new());
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let command = line.trim_end();
        let answer: &[u8] = match &mut content {
            Some(text) if command == "." => {
                let accepted = Instant::now();
                let token = token(text);
                let _ = mails.send(Mail { accepted, token });
                content = None;
                b"250 accepted\r\n"
            }
            Some(text) => {
                // Quoted-printable: a line that ends with `=` goes on.
                text.push_str(command.strip_suffix('=').unwrap_or(&line));
                continue;
            }
            None if command == "DATA" => {
                content = Some(String::new());
                b"354 go on\r\n"
            }
            None => b"250 ok\r\n",
        };
        stream.write_all(answer).await?;
    }
}

/// The token in the first link of a mail.
fn token(text: &str) -> Option<String> {
    let (_, after) = text.split_once("?token=")?;
    let after = after.strip_prefix("3D").unwrap_or(after);
    let is_token = |character: char| character.is_ascii_alphanumeric() || "-_".contains(character);
    Some(after.chars().take_while(|&it| is_token(it)).collect())
}
