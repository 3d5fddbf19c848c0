//! One connection to the broker that is made again whenever it is lost.
//!
//! lapin's own recovery restores a connection under the feet of whoever uses it. Here a lost connection is
//! thrown away, and whoever used it starts over with the next one: less to know, and nothing half restored.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties, Event};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;

/// Seconds between heartbeats where the URL does not say; silence of twice that ends a connection.
const HEARTBEAT_SECONDS: u16 = 10;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// How long the goodbye may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How often the state is looked at, should the event that tells of a loss not come.
const STATE_CHECK: Duration = Duration::from_secs(1);

/// What is said of a connection that ended without a reason.
const LOST: &str = "connection lost";

pub(super) struct Link {
    current: watch::Receiver<State>,
    stop: CancellationToken,
}

/// The connection, or why there is none, without the password of the URL.
type State = Result<Arc<Live>, String>;

/// A connection that was alive when it was handed out.
pub(super) struct Live {
    connection: Connection,
    broken: CancellationToken,
}

impl Live {
    pub(super) async fn channel(&self) -> lapin::Result<lapin::Channel> {
        self.connection.create_channel().await
    }

    pub(super) fn is_usable(&self) -> bool {
        !self.broken.is_cancelled() && self.connection.status().connected()
    }

    /// The broker did not answer in time: replace the connection.
    pub(super) fn give_up(&self) {
        self.broken.cancel();
    }

    /// Resolves when the connection is lost or given up.
    pub(super) async fn lost(&self) {
        self.broken.cancelled().await;
    }
}

impl Link {
    pub(super) fn open(uri: &AMQPUri, name: String) -> Self {
        let mut uri = uri.clone();
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        let (sender, current) = watch::channel(Err("connecting".to_owned()));
        let stop = CancellationToken::new();
        let supervisor = Supervisor {
            broker: format!("{}:{}", uri.authority.host, uri.authority.port),
            uri,
            name,
            current: sender,
            down_since: None,
        };
        tokio::spawn(supervisor.run(stop.clone()));
        Self { current, stop }
    }

    /// Waits for a live connection. None when the link is closed.
    pub(super) async fn connection(&self) -> Option<Arc<Live>> {
        let mut current = self.current.clone();
        let live = current.wait_for(|current| problem(current).is_none()).await;
        live.ok()?.clone().ok()
    }

    /// Why there is no connection; `None` if there is one.
    pub(super) fn problem(&self) -> Option<String> {
        problem(&self.current.borrow()).map(str::to_owned)
    }

    pub(super) async fn close(&self) {
        self.stop.cancel();
        let mut current = self.current.clone();
        // The supervisor drops its end when it is done.
        while current.changed().await.is_ok() {}
    }
}

/// A lost connection stays in its place until the supervisor has noticed.
fn problem(current: &State) -> Option<&str> {
    match current {
        Ok(live) if live.is_usable() => None,
        Ok(_) => Some(LOST),
        Err(problem) => Some(problem),
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Supervisor {
    uri: AMQPUri,
    /// Host and port, for the log: the URL has a password in it.
    broker: String,
    name: String,
    current: watch::Sender<State>,
    /// Set while the broker is away.
    down_since: Option<Instant>,
}

impl Supervisor {
    async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(3));
        loop {
            let connected = tokio::select! {
                connected = self.connect() => connected,
                () = stop.cancelled() => return,
            };
            match connected {
                Ok(connection) => {
                    backoff.reset();
                    self.log_connected();
                    if self.watch(connection, &stop).await == Ended::Stopped {
                        return;
                    }
                }
                Err(error) => self.down(format!("AMQP_URL: cannot connect: {error}")),
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next_delay()) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn connect(&self) -> Result<Connection, String> {
        let properties =
            ConnectionProperties::default().with_connection_name(self.name.as_str().into());
        // When the time is over, lapin's thread for this attempt stays until its socket ends; heartbeats
        // begin only after the handshake. A broker that is alive ends it itself after 10 s.
        let connecting = Connection::connect_uri(self.uri.clone(), properties);
        match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(connected) => connected.map_err(|error| error.to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }

    /// Offers the connection until it is lost, given up, or no longer wanted.
    async fn watch(&mut self, connection: Connection, stop: &CancellationToken) -> Ended {
        let mut events = connection.events_listener();
        let live = Arc::new(Live {
            connection,
            broken: CancellationToken::new(),
        });
        drop(self.current.send_replace(Ok(Arc::clone(&live))));
        let ended = loop {
            let event = tokio::select! {
                event = tokio::time::timeout(STATE_CHECK, events.next()) => event.ok().flatten(),
                () = live.lost() => {
                    self.down("no answer in time".to_owned());
                    break Ended::Lost;
                }
                () = stop.cancelled() => break Ended::Stopped,
            };
            match event {
                // While it is blocked nobody starts a batch; a batch under way runs into its timeout.
                Some(Event::ConnectionBlocked(reason)) => {
                    self.down(format!("blocked by the broker: {reason}"));
                }
                Some(Event::ConnectionUnblocked) => {
                    self.log_connected();
                    drop(self.current.send_replace(Ok(Arc::clone(&live))));
                }
                Some(Event::Error(error)) if !live.is_usable() => {
                    self.down(error.to_string());
                    break Ended::Lost;
                }
                _ if !live.is_usable() => {
                    self.down(LOST.to_owned());
                    break Ended::Lost;
                }
                _ => {}
            }
        };
        if ended == Ended::Stopped {
            drop(self.current.send_replace(Err("closed".to_owned())));
        }
        live.give_up();
        let goodbye = live.connection.close(200, "OK".into());
        // Fails if the connection is gone already, which is what is wanted.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, goodbye).await;
        ended
    }

    fn log_connected(&mut self) {
        let (connection, broker) = (&self.name, &self.broker);
        if let Some(since) = self.down_since.take() {
            let seconds = since.elapsed().as_secs();
            tracing::info!(connection, broker, seconds, "broker is back");
        } else {
            tracing::info!(connection, broker, "connected to the broker");
        }
    }

    /// Takes the connection away. The log tells of changes only.
    fn down(&mut self, error: String) {
        let is_news =
            self.down_since.is_none() || self.current.borrow().as_ref().err() != Some(&error);
        self.down_since.get_or_insert_with(Instant::now);
        if is_news {
            let (connection, broker) = (&self.name, &self.broker);
            tracing::warn!(
                connection,
                broker,
                error,
                "broker is away; trying again until it is back"
            );
        }
        drop(self.current.send_replace(Err(error)));
    }
}

#[derive(PartialEq, Eq)]
enum Ended {
    Lost,
    Stopped,
}
