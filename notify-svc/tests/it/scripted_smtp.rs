//! An SMTP server that fails where a test tells it to.

mod session;

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
};
use tokio_rustls::TlsAcceptor;

use self::session::Session;

/// A moment of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    Connect,
    Ehlo,
    StartTls,
    Auth,
    Mail,
    Rcpt,
    Data,
    /// The content begins; only for [`Fault::Cut`].
    Content,
    /// The content was received up to its final dot.
    Dot,
    Rset,
    Quit,
}

/// What goes wrong then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// This reply instead of success; after a 421 the connection is closed.
    Reply(&'static str),
    /// Success, but only after [`ScriptedSmtp::go_on`].
    Wait,
    /// Success, byte for byte.
    Split,
    /// Success, and one reply more.
    Twice,
    /// Something that is no reply.
    Garbage,
    /// Never an answer.
    Stall,
    /// The connection is cut.
    Cut,
    /// Success, and then the connection is cut.
    ThenCut,
    /// The email is taken, and the connection is cut before the answer.
    TakeAndCut,
    /// A reply of [`FLOOD_BYTES`] without a line end.
    Flood,
}

impl Fault {
    /// Whether the server does what it was asked.
    fn succeeds(self) -> bool {
        matches!(
            self,
            Self::Wait | Self::Split | Self::Twice | Self::ThenCut | Self::TakeAndCut
        )
    }
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
    extensions: Vec<String>,
    is_careless: bool,
    faults: Vec<(At, Option<String>, Fault)>,
    taken: Vec<Taken>,
    /// Each with whether more had arrived with it.
    commands: Vec<(String, bool)>,
    /// Empty emails without a recipient.
    nothing_for_nobody: usize,
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
        server.offer(&["AUTH PLAIN LOGIN", "8BITMIME", "PIPELINING"]);
        tokio::spawn(server.clone().accept(listener));
        server
    }

    /// From now on EHLO offers these extensions, and STARTTLS if there is TLS.
    pub fn offer(&self, extensions: &[&str]) {
        self.lock().extensions = extensions.iter().map(ToString::to_string).collect();
    }

    /// From now on RCPT and DATA are accepted whatever came before them.
    pub fn be_careless(&self) {
        self.lock().is_careless = true;
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

    pub fn has_fault_for(&self, recipient: &str) -> bool {
        let is_for = |whom: &Option<String>| whom.as_deref() == Some(recipient);
        self.lock().faults.iter().any(|(_, whom, _)| is_for(whom))
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

    /// The commands that begin with `verb`.
    pub fn commands(&self, verb: &str) -> Vec<String> {
        let state = self.lock();
        let commands = state.commands.iter().map(|(command, _)| command);
        let found = commands.filter(|command| command.starts_with(verb));
        found.cloned().collect()
    }

    /// How many commands arrived together with another one after them.
    pub fn pipelined(&self) -> usize {
        let state = self.lock();
        state.commands.iter().filter(|(_, more)| *more).count()
    }

    /// How often DATA was ended without content for nobody.
    pub fn nothing_for_nobody(&self) -> usize {
        self.lock().nothing_for_nobody
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

    fn fault(&self, at: At, recipient: Option<&str>) -> Option<Fault> {
        let mut state = self.lock();
        let found = state.faults.iter().position(|(when, whom, _)| {
            *when == at && (whom.is_none() || whom.as_deref() == recipient)
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
                let _ = server.serve(stream).await;
                server.lock().open -= 1;
            });
        }
    }

    async fn serve(&self, stream: TcpStream) -> io::Result<()> {
        if let Encryption::Implicit(acceptor) = &self.encryption {
            let stream = acceptor.accept(stream).await?;
            self.lock().encrypted += 1;
            let mut session = Session::new(self, stream);
            if session.greet().await? {
                session.speak(true).await?;
            }
            return Ok(());
        }
        let mut session = Session::new(self, stream);
        if !session.greet().await? {
            return Ok(());
        }
        let begins_tls = session.speak(false).await?;
        if let (Some(stream), Encryption::StartTls(acceptor)) = (begins_tls, &self.encryption) {
            let stream = acceptor.accept(stream).await?;
            self.lock().encrypted += 1;
            Session::new(self, stream).speak(true).await?;
        }
        Ok(())
    }
}
