//! The service's own statements: what account-svc sends to PostgreSQL for each `CreateAccount`, recorded on the way
//! and sent again without the service. So it stays true whatever the service's statements become.
//!
//! While it records, `COMMIT` becomes `ROLLBACK`: what is recorded can be carried out afterwards.

use std::{
    collections::HashMap,
    io::{BufReader, Read as _, Write as _},
    net::TcpStream as Connection,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};
use url::Url;

use crate::baseline::Rate;

/// A proxy in front of PostgreSQL that records.
pub struct Recorder {
    /// Where a service finds PostgreSQL through it.
    pub url: String,
    recorded: Arc<Mutex<Recorded>>,
    server: String,
}

/// What was recorded. Messages: PostgreSQL's documentation, "Message Formats".
#[derive(Default)]
struct Recorded {
    startup: Vec<u8>,
    /// `Parse` messages without type, length and name.
    statements: Vec<Vec<u8>>,
    transactions: Vec<Transaction>,
}

/// A transaction as round trips: each is sent as a whole, and waits for `ReadyForQuery`.
type Transaction = Vec<Vec<u8>>;

impl Recorder {
    /// Records the transactions of one organization that are committed.
    pub async fn start(service_url: &str, organization_id: &str) -> anyhow::Result<Self> {
        let mut url = Url::parse(service_url)?;
        let host = url.host_str().context("no host")?;
        let server = format!("{host}:{}", url.port().unwrap_or(5432));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        url.set_host(Some("127.0.0.1"))?;
        let _ = url.set_port(Some(listener.local_addr()?.port()));
        url.set_query(Some("sslmode=disable"));
        let recorded = Arc::<Mutex<Recorded>>::default();
        let wanted = organization_id.as_bytes().to_vec();
        let (to, into) = (server.clone(), Arc::clone(&recorded));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (wanted, into) = (wanted.clone(), Arc::clone(&into));
                let Ok(server) = TcpStream::connect(&to).await else {
                    return;
                };
                tokio::spawn(async move {
                    let _ = (client.set_nodelay(true), server.set_nodelay(true));
                    let (from_client, mut to_client) = client.into_split();
                    let (mut from_server, to_server) = server.into_split();
                    let mut session = Session {
                        recorded: into,
                        wanted,
                        names: HashMap::new(),
                        round_trip: Vec::new(),
                        transaction: None,
                    };
                    tokio::select! {
                        _ = session.carry(from_client, to_server) => {}
                        _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
                    }
                });
            }
        });
        Ok(Self {
            url: url.into(),
            recorded,
            server,
        })
    }

    /// How many transactions are recorded.
    pub fn count(&self) -> usize {
        lock(&self.recorded).transactions.len()
    }

    /// What was recorded, to be sent again.
    pub fn finish(self) -> Replay {
        Replay {
            recorded: std::mem::take(&mut *lock(&self.recorded)),
            server: self.server,
            next: AtomicUsize::new(0),
        }
    }
}

/// One connection that is recorded.
struct Session {
    recorded: Arc<Mutex<Recorded>>,
    /// What the `BEGIN` of a transaction that is wanted holds.
    wanted: Vec<u8>,
    /// The number of each prepared statement, by its name.
    names: HashMap<Vec<u8>, usize>,
    round_trip: Vec<u8>,
    transaction: Option<Transaction>,
}

impl Session {
    async fn carry(
        &mut self,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
    ) -> anyhow::Result<()> {
        let mut startup = vec![0; 4];
        from.read_exact(&mut startup).await?;
        let length = u32::from_be_bytes(startup[..].try_into()?) as usize;
        startup.resize(length, 0);
        from.read_exact(&mut startup[4..]).await?;
        to.write_all(&startup).await?;
        lock(&self.recorded).startup = startup;
        let mut pending = Vec::new();
        loop {
            let mut head = [0; 5];
            from.read_exact(&mut head).await?;
            let length = u32::from_be_bytes(head[1..].try_into()?) as usize;
            let mut body = vec![0; length.checked_sub(4).context("malformed message")?];
            from.read_exact(&mut body).await?;
            self.take(head[0], &mut body)?;
            pending.extend(message(head[0], &body));
            if matches!(head[0], b'S' | b'Q' | b'p' | b'X' | b'H') {
                to.write_all(&pending).await?;
                pending.clear();
            }
        }
    }

    fn take(&mut self, kind: u8, body: &mut Vec<u8>) -> anyhow::Result<()> {
        match kind {
            b'P' => {
                let (name, statement) = split(body)?;
                let mut recorded = lock(&self.recorded);
                let known = recorded.statements.iter().position(|it| it == statement);
                let number = known.unwrap_or(recorded.statements.len());
                if known.is_none() {
                    recorded.statements.push(statement.to_vec());
                }
                self.names.insert(name.to_vec(), number);
            }
            b'B' => {
                let (portal, rest) = split(body)?;
                let (name, rest) = split(rest)?;
                let number = self.names.get(name).context("an unknown statement")?;
                let bind = [portal, b"\0", name_of(*number).as_bytes(), b"\0", rest].concat();
                self.round_trip.extend(message(kind, &bind));
            }
            b'Q' => self.query(body),
            b'S' => {
                let round_trip = std::mem::take(&mut self.round_trip);
                // What only prepares a statement is not part of the transaction.
                if let Some(transaction) = &mut self.transaction
                    && !round_trip.is_empty()
                {
                    transaction.push([round_trip, message(b'S', b"")].concat());
                }
            }
            // Of a portal, or after a Bind: Describe, Execute, Close, Flush.
            _ if !self.round_trip.is_empty() => self.round_trip.extend(message(kind, body)),
            _ => {}
        }
        Ok(())
    }

    fn query(&mut self, body: &mut Vec<u8>) {
        let holds = |part: &[u8]| body.windows(part.len()).any(|window| window == part);
        if body.starts_with(b"BEGIN") {
            self.transaction = holds(&self.wanted).then(|| vec![message(b'Q', body)]);
        } else if body.starts_with(b"ROLLBACK") {
            self.transaction = None;
        } else if let Some(mut transaction) = self.transaction.take() {
            transaction.push(message(b'Q', body));
            if body.starts_with(b"COMMIT") {
                lock(&self.recorded).transactions.push(transaction);
                *body = b"ROLLBACK\0".to_vec();
            } else {
                self.transaction = Some(transaction);
            }
        }
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&[kind], &length.to_be_bytes()[..], body].concat()
}

/// A text that ends with a zero, and what follows.
fn split(body: &[u8]) -> anyhow::Result<(&[u8], &[u8])> {
    let end = body.iter().position(|&byte| byte == 0);
    let end = end.context("a text without an end")?;
    Ok((&body[..end], &body[end + 1..]))
}

fn name_of(number: usize) -> String {
    format!("s{number}")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Transactions to be carried out, each once.
pub struct Replay {
    recorded: Recorded,
    server: String,
    next: AtomicUsize,
}

impl Replay {
    /// How many statements a transaction has on average, and how many round trips.
    pub fn round_trips(&self) -> f64 {
        let transactions = &self.recorded.transactions;
        let round_trips: usize = transactions.iter().map(Vec::len).sum();
        round_trips as f64 / transactions.len() as f64
    }

    /// Carries out transactions on so many connections for so long, as pgbench does: each waits for its answer.
    pub fn run(&self, connections: usize, time: Duration) -> anyhow::Result<Rate> {
        let connections: anyhow::Result<Vec<_>> =
            (0..connections).map(|_| self.connect()).collect();
        let started = Instant::now();
        let times = thread::scope(|scope| {
            let threads: Vec<_> = connections?
                .into_iter()
                .map(|connection| scope.spawn(move || self.work(connection, started + time)))
                .collect();
            let mut all = Vec::new();
            for thread in threads {
                let times = thread.join().map_err(|_| anyhow::anyhow!("a panic"))?;
                all.extend(times?);
            }
            anyhow::Ok(all)
        })?;
        let elapsed = started.elapsed();
        anyhow::ensure!(
            elapsed * 2 > time,
            "all transactions were sent too soon: record more of them"
        );
        Ok(Rate::new(times, elapsed))
    }

    fn connect(&self) -> anyhow::Result<BufReader<Connection>> {
        let connection = Connection::connect(&self.server)?;
        connection.set_nodelay(true)?;
        let mut connection = BufReader::new(connection);
        connection.get_mut().write_all(&self.recorded.startup)?;
        answered(&mut connection)?;
        for (number, statement) in self.recorded.statements.iter().enumerate() {
            let parse = [name_of(number).as_bytes(), b"\0", statement].concat();
            let round_trip = [message(b'P', &parse), message(b'S', b"")].concat();
            connection.get_mut().write_all(&round_trip)?;
            answered(&mut connection)?;
        }
        Ok(connection)
    }

    fn work(
        &self,
        mut connection: BufReader<Connection>,
        end: Instant,
    ) -> anyhow::Result<Vec<Duration>> {
        let mut times = Vec::new();
        while Instant::now() < end {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(transaction) = self.recorded.transactions.get(number) else {
                break;
            };
            let started = Instant::now();
            for round_trip in transaction {
                connection.get_mut().write_all(round_trip)?;
                answered(&mut connection)?;
            }
            times.push(started.elapsed());
        }
        Ok(times)
    }
}

/// Reads until the server is ready for the next round trip.
fn answered(connection: &mut BufReader<Connection>) -> anyhow::Result<()> {
    let mut body = Vec::new();
    loop {
        let mut head = [0; 5];
        connection.read_exact(&mut head)?;
        let length = u32::from_be_bytes(head[1..].try_into()?) as usize;
        body.resize(length.checked_sub(4).context("malformed message")?, 0);
        connection.read_exact(&mut body)?;
        match head[0] {
            b'Z' => return Ok(()),
            b'E' => anyhow::bail!("PostgreSQL: {}", String::from_utf8_lossy(&body)),
            b'R' if body != [0; 4] => anyhow::bail!(
                "PostgreSQL asks for a password; this needs one that trusts local logins"
            ),
            _ => {}
        }
    }
}
