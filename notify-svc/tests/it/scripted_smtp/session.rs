//! One session with the server.

use std::io;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};

use super::{At, Encryption, FLOOD_BYTES, Fault, ScriptedSmtp, Taken};

pub struct Session<'a, S> {
    server: &'a ScriptedSmtp,
    stream: BufReader<S>,
    /// Whether MAIL was accepted.
    has_sender: bool,
    /// Of the email that is being sent, if it was accepted.
    recipient: Option<String>,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Session<'a, S> {
    pub fn new(server: &'a ScriptedSmtp, stream: S) -> Self {
        Self {
            server,
            stream: BufReader::new(stream),
            has_sender: false,
            recipient: None,
        }
    }

    pub async fn greet(&mut self) -> io::Result<bool> {
        Ok(self.answer(At::Connect, "220 test ESMTP").await?.0)
    }

    /// Speaks SMTP; returns the stream when TLS is to begin.
    pub async fn speak(mut self, encrypted: bool) -> io::Result<Option<S>> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.stream.read_line(&mut line).await? == 0 {
                return Ok(None);
            }
            let command = line.trim_end().to_owned();
            let is_pipelined = !self.stream.buffer().is_empty();
            self.server
                .lock()
                .commands
                .push((command.clone(), is_pipelined));
            let verb = command
                .split([' ', ':'])
                .next()
                .unwrap_or_default()
                .to_uppercase();
            let go_on = match verb.as_str() {
                "EHLO" => {
                    let reply = self.hello(encrypted);
                    self.answer(At::Ehlo, &reply).await?.0
                }
                "HELO" => self.write("250 test").await?,
                "STARTTLS" => {
                    let (goes_on, succeeded) = self.answer(At::StartTls, "220 go").await?;
                    if succeeded {
                        return Ok(Some(self.stream.into_inner()));
                    }
                    goes_on
                }
                "AUTH" => self.log_in(command).await?,
                "MAIL" => {
                    let (goes_on, succeeded) = self.answer(At::Mail, "250 2.1.0 ok").await?;
                    self.has_sender = succeeded;
                    goes_on
                }
                "RCPT" => self.recipient(&command).await?,
                "DATA" => self.data().await?,
                "RSET" => {
                    (self.has_sender, self.recipient) = (false, None);
                    self.answer(At::Rset, "250 2.0.0 ok").await?.0
                }
                "QUIT" => {
                    self.answer(At::Quit, "221 bye").await?;
                    false
                }
                _ => self.write("502 5.5.1 unknown").await?,
            };
            if !go_on {
                return Ok(None);
            }
        }
    }

    fn hello(&self, encrypted: bool) -> String {
        let state = self.server.lock();
        let start_tls = matches!(self.server.encryption, Encryption::StartTls(_)) && !encrypted;
        let extensions = state.extensions.iter().map(String::as_str);
        let lines: Vec<_> = ["test"]
            .into_iter()
            .chain(start_tls.then_some("STARTTLS"))
            .chain(extensions)
            .collect();
        let (last, others) = lines.split_last().unwrap();
        let others = others.iter().map(|line| format!("250-{line}\r\n"));
        format!("{}250 {last}", others.collect::<Vec<_>>().concat())
    }

    async fn log_in(&mut self, command: String) -> io::Result<bool> {
        let mut login = command;
        if login == "AUTH LOGIN" {
            for challenge in ["334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6"] {
                self.write(challenge).await?;
                let mut line = String::new();
                self.stream.read_line(&mut line).await?;
                login = format!("{login} {}", line.trim_end());
            }
        }
        self.server.lock().logins.push(login);
        Ok(self.answer(At::Auth, "235 2.7.0 welcome").await?.0)
    }

    async fn recipient(&mut self, command: &str) -> io::Result<bool> {
        if !self.has_sender && !self.server.lock().is_careless {
            return self.write("503 5.5.1 MAIL first").await;
        }
        self.recipient = Some(between(command, '<', '>'));
        let (goes_on, succeeded) = self.answer(At::Rcpt, "250 2.1.5 ok").await?;
        if !succeeded {
            self.recipient = None;
        }
        Ok(goes_on)
    }

    async fn data(&mut self) -> io::Result<bool> {
        if self.recipient.is_none() && !self.server.lock().is_careless {
            return self.write("503 5.5.1 nobody to send it to").await;
        }
        let (goes_on, succeeded) = self.answer(At::Data, "354 go on").await?;
        if succeeded {
            return self.content().await;
        }
        Ok(goes_on)
    }

    async fn content(&mut self) -> io::Result<bool> {
        if self.fault(At::Content).await == Some(Fault::Cut) {
            return Ok(false);
        }
        let mut raw = Vec::new();
        loop {
            let mut line = Vec::new();
            if self.stream.read_until(b'\n', &mut line).await? == 0 {
                return Ok(false);
            }
            if line == b".\r\n" {
                break;
            }
            let stuffed = line.starts_with(b"..");
            raw.extend_from_slice(&line[usize::from(stuffed)..]);
        }
        let Some(recipient) = self.recipient.clone() else {
            self.server.lock().nothing_for_nobody += usize::from(raw.is_empty());
            return self.write("554 5.5.1 nobody to send it to").await;
        };
        let fault = self.fault(At::Dot).await;
        (self.has_sender, self.recipient) = (false, None);
        if fault.is_none_or(Fault::succeeds) {
            self.server.lock().taken.push(Taken { recipient, raw });
        }
        self.reply(fault, "250 2.0.0 queued").await
    }

    /// What goes wrong now, after the wait that is due.
    async fn fault(&self, at: At) -> Option<Fault> {
        let fault = self.server.fault(at, self.recipient.as_deref())?;
        if fault == Fault::Wait {
            self.server.go_on.notified().await;
            return None;
        }
        Some(fault)
    }

    /// Answers with success, or with the fault that is due: whether the session goes on, and whether it was a success.
    async fn answer(&mut self, at: At, success: &str) -> io::Result<(bool, bool)> {
        let fault = self.fault(at).await;
        let goes_on = self.reply(fault, success).await?;
        Ok((goes_on, goes_on && fault.is_none_or(Fault::succeeds)))
    }

    /// False ends the session.
    async fn reply(&mut self, fault: Option<Fault>, success: &str) -> io::Result<bool> {
        match fault {
            None | Some(Fault::Wait) => self.write(success).await,
            Some(Fault::Reply(reply)) => {
                self.write(reply).await?;
                Ok(!reply.starts_with("421"))
            }
            Some(Fault::Garbage) => self.write("\u{1}what is this?").await,
            Some(Fault::Split) => {
                for byte in format!("{success}\r\n").bytes() {
                    self.stream.write_all(&[byte]).await?;
                    self.stream.flush().await?;
                    tokio::task::yield_now().await;
                }
                Ok(true)
            }
            Some(Fault::Twice) => self.write(&format!("{success}\r\n250 2.0.0 again")).await,
            Some(Fault::Stall) => {
                // Until the client loses patience.
                while !self.stream.fill_buf().await?.is_empty() {
                    let length = self.stream.buffer().len();
                    self.stream.consume(length);
                }
                Ok(false)
            }
            Some(Fault::Flood) => {
                let part = vec![b'x'; 64 * 1024];
                for _ in 0..FLOOD_BYTES / part.len() {
                    self.stream.write_all(&part).await?;
                }
                self.server.lock().swallowed_floods += 1;
                Ok(false)
            }
            Some(Fault::ThenCut) => {
                self.write(success).await?;
                Ok(false)
            }
            Some(Fault::Cut | Fault::TakeAndCut) => Ok(false),
        }
    }

    async fn write(&mut self, reply: &str) -> io::Result<bool> {
        self.stream
            .write_all(format!("{reply}\r\n").as_bytes())
            .await?;
        self.stream.flush().await?;
        Ok(true)
    }
}

fn between(text: &str, open: char, close: char) -> String {
    let (_, rest) = text.split_once(open).unwrap_or_default();
    rest.split_once(close).unwrap_or_default().0.to_owned()
}
