//! An SMTP server that fails where a test tells it to.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader},
    net::TcpListener,
    sync::Notify,
};
use tokio_rustls::TlsAcceptor;

/// A moment of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    Connect,
    Ehlo,
    Mail,
    Rcpt,
    Data,
    /// The content was received up to its final dot.
    Dot,
}

/// What goes wrong then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// This reply instead of success; after a 421 the connection is closed.
    Reply(&'static str),
    /// Success, but only after [`ScriptedSmtp::go_on`].
    Wait,
    /// Never an answer.
    Stall,
    /// The connection is cut.
    Cut,
    /// The email is taken, and the connection is cut before the answer.
    TakeAndCut,
    /// A reply of [`FLOOD_BYTES`] without a line end.
    Flood,
}

/// More than the system holds for a connection whose other end does not read.
const FLOOD_BYTES: usize = 32 * 1024 * 1024;

/// An email that was accepted.
#[derive(Debug, Clone)]
pub struct Taken {
    pub recipient: String,
    pub raw: Vec<u8>,
}

#[derive(Default)]
struct State {
    faults: Vec<(At, Option<String>, Fault)>,
    taken: Vec<Taken>,
    connections: usize,
    open: usize,
    most_open: usize,
    logins: Vec<String>,
    encrypted: usize,
    swallowed_floods: usize,
}

/// How the server encrypts.
#[derive(Clone)]
pub enum Encryption {
    None,
    StartTls(TlsAcceptor),
    Implicit(TlsAcceptor),
}

#[derive(Clone)]
pub struct ScriptedSmtp {
    port: u16,
    state: Arc<Mutex<State>>,
    go_on: Arc<Notify>,
    encryption: Encryption,
}

impl ScriptedSmtp {
    pub async fn start() -> Self {
        Self::start_with(Encryption::None).await
    }

    pub async fn start_with(encryption: Encryption) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            port: listener.local_addr().unwrap().port(),
            state: Arc::default(),
            go_on: Arc::default(),
            encryption,
        };
        tokio::spawn(server.clone().accept(listener));
        server
    }

    pub fn url(&self) -> String {
        format!("smtp://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The next time that somebody comes to `at`, `fault` happens.
    pub fn fail_once(&self, at: At, fault: Fault) {
        self.lock().faults.push((at, None, fault));
    }

    /// The next time that an email to `recipient` comes to `at`, `fault` happens.
    pub fn fail_once_for(&self, recipient: &str, at: At, fault: Fault) {
        self.lock()
            .faults
            .push((at, Some(recipient.to_owned()), fault));
    }

    /// Ends one [`Fault::Wait`].
    pub fn go_on(&self) {
        self.go_on.notify_one();
    }

    pub fn has_faults_left(&self) -> bool {
        !self.lock().faults.is_empty()
    }

    pub fn taken(&self) -> Vec<Taken> {
        self.lock().taken.clone()
    }

    pub fn taken_count(&self) -> usize {
        self.lock().taken.len()
    }

    pub fn taken_for(&self, recipient: &str) -> Vec<Taken> {
        self.taken()
            .into_iter()
            .filter(|mail| mail.recipient == recipient)
            .collect()
    }

    pub fn connections(&self) -> usize {
        self.lock().connections
    }

    pub fn most_open(&self) -> usize {
        self.lock().most_open
    }

    pub fn encrypted(&self) -> usize {
        self.lock().encrypted
    }

    /// Floods that the client read to their end.
    pub fn swallowed_floods(&self) -> usize {
        self.lock().swallowed_floods
    }

    pub fn logins(&self) -> Vec<String> {
        self.lock().logins.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn fault(&self, at: At, recipient: &str) -> Option<Fault> {
        let mut state = self.lock();
        let found = state.faults.iter().position(|(when, whom, _)| {
            *when == at && whom.as_deref().is_none_or(|whom| whom == recipient)
        })?;
        Some(state.faults.remove(found).2)
    }

    async fn accept(self, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            let server = self.clone();
            tokio::spawn(async move {
                {
                    let mut state = server.lock();
                    state.connections += 1;
                    state.open += 1;
                    state.most_open = state.most_open.max(state.open);
                }
                // A client that hangs up is no failure of the test.
                let _ = match server.encryption.clone() {
                    Encryption::Implicit(acceptor) => match acceptor.accept(stream).await {
                        Ok(stream) => {
                            server.lock().encrypted += 1;
                            server.session(stream, true).await.map(|_| ())
                        }
                        Err(error) => Err(error),
                    },
                    Encryption::None => server.session(stream, true).await.map(|_| ()),
                    Encryption::StartTls(acceptor) => match server.session(stream, true).await {
                        Ok(Some(stream)) => match acceptor.accept(stream).await {
                            Ok(stream) => {
                                server.lock().encrypted += 1;
                                server.session(stream, false).await.map(|_| ())
                            }
                            Err(error) => Err(error),
                        },
                        Ok(None) => Ok(()),
                        Err(error) => Err(error),
                    },
                };
                server.lock().open -= 1;
            });
        }
    }

    /// Speaks SMTP; returns the stream when TLS is to begin.
    async fn session<S>(&self, stream: S, greet: bool) -> io::Result<Option<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut stream = BufReader::new(stream);
        if greet
            && !self
                .answer(&mut stream, At::Connect, "", "220 test ESMTP")
                .await?
        {
            return Ok(None);
        }
        let mut recipient = String::new();
        let mut line = String::new();
        loop {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(None);
            }
            let command = line.trim_end().to_owned();
            let verb = command
                .split([' ', ':'])
                .next()
                .unwrap_or_default()
                .to_uppercase();
            let go_on = match verb.as_str() {
                "EHLO" => {
                    let start_tls = matches!(self.encryption, Encryption::StartTls(_)) && greet;
                    let extensions = if start_tls { "250-STARTTLS\r\n" } else { "" };
                    let reply =
                        format!("250-test\r\n{extensions}250-AUTH PLAIN LOGIN\r\n250 8BITMIME");
                    self.answer(&mut stream, At::Ehlo, "", &reply).await?
                }
                "STARTTLS" => {
                    write(&mut stream, "220 go").await?;
                    return Ok(Some(stream.into_inner()));
                }
                "AUTH" => {
                    self.lock().logins.push(command);
                    write(&mut stream, "235 2.7.0 welcome").await?
                }
                "MAIL" => {
                    self.answer(&mut stream, At::Mail, "", "250 2.1.0 ok")
                        .await?
                }
                "RCPT" => {
                    recipient = between(&command, '<', '>');
                    self.answer(&mut stream, At::Rcpt, &recipient, "250 2.1.5 ok")
                        .await?
                }
                "DATA" => match self.fault(At::Data, &recipient) {
                    None => {
                        write(&mut stream, "354 go on").await?;
                        self.content(&mut stream, &recipient).await?
                    }
                    Some(fault) => self.fail(&mut stream, fault).await?,
                },
                "QUIT" => {
                    write(&mut stream, "221 bye").await?;
                    false
                }
                _ => write(&mut stream, "250 ok").await?,
            };
            if !go_on {
                return Ok(None);
            }
        }
    }

    async fn content<S>(&self, stream: &mut BufReader<S>, recipient: &str) -> io::Result<bool>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut raw = Vec::new();
        loop {
            let mut line = Vec::new();
            if stream.read_until(b'\n', &mut line).await? == 0 {
                return Ok(false);
            }
            if line == b".\r\n" {
                break;
            }
            let stuffed = line.starts_with(b"..");
            raw.extend_from_slice(&line[usize::from(stuffed)..]);
        }
        let taken = Taken {
            recipient: recipient.to_owned(),
            raw,
        };
        match self.fault(At::Dot, recipient) {
            None => {
                self.lock().taken.push(taken);
                write(stream, "250 2.0.0 queued").await
            }
            Some(Fault::Wait) => {
                self.go_on.notified().await;
                self.lock().taken.push(taken);
                write(stream, "250 2.0.0 queued").await
            }
            Some(Fault::TakeAndCut) => {
                self.lock().taken.push(taken);
                Ok(false)
            }
            Some(fault) => self.fail(stream, fault).await,
        }
    }

    /// Answers with success, or with the fault that is due. False ends the session.
    async fn answer<S>(
        &self,
        stream: &mut BufReader<S>,
        at: At,
        recipient: &str,
        success: &str,
    ) -> io::Result<bool>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match self.fault(at, recipient) {
            None => write(stream, success).await,
            Some(Fault::Wait) => {
                self.go_on.notified().await;
                write(stream, success).await
            }
            Some(fault) => self.fail(stream, fault).await,
        }
    }

    /// False ends the session.
    async fn fail<S>(&self, stream: &mut BufReader<S>, fault: Fault) -> io::Result<bool>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match fault {
            Fault::Reply(reply) => {
                write(stream, reply).await?;
                Ok(!reply.starts_with("421"))
            }
            Fault::Stall => {
                // Until the client loses patience.
                while !stream.fill_buf().await?.is_empty() {
                    let length = stream.buffer().len();
                    stream.consume(length);
                }
                Ok(false)
            }
            Fault::Flood => {
                let part = vec![b'x'; 64 * 1024];
                for _ in 0..FLOOD_BYTES / part.len() {
                    stream.write_all(&part).await?;
                }
                self.lock().swallowed_floods += 1;
                Ok(false)
            }
            Fault::Cut | Fault::TakeAndCut => Ok(false),
            Fault::Wait => panic!("DATA cannot wait"),
        }
    }
}

async fn write<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut BufReader<S>,
    reply: &str,
) -> io::Result<bool> {
    stream.write_all(format!("{reply}\r\n").as_bytes()).await?;
    stream.flush().await?;
    Ok(true)
}

fn between(text: &str, open: char, close: char) -> String {
    let (_, rest) = text.split_once(open).unwrap_or_default();
    rest.split_once(close).unwrap_or_default().0.to_owned()
}
