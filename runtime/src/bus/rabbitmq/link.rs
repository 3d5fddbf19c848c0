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

pub(super) struct Link {
    current: watch::Receiver<Option<Arc<Live>>>,
    stop: CancellationToken,
}

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
        let (sender, current) = watch::channel(None);
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
        let live = current.wait_for(|current| usable(current.as_ref())).await;
        live.ok()?.clone()
    }

    pub(super) fn is_connected(&self) -> bool {
        usable(self.current.borrow().as_ref())
    }

    pub(super) async fn close(&self) {
        self.stop.cancel();
        let mut current = self.current.clone();
        // The supervisor drops its end when it is done.
        while current.changed().await.is_ok() {}
    }
}

/// A lost connection stays in its place until the supervisor has noticed.
fn usable(current: Option<&Arc<Live>>) -> bool {
    current.is_some_and(|live| live.is_usable())
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
    current: watch::Sender<Option<Arc<Live>>>,
    /// Set while the broker is away, so that the log tells of changes only.
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
                Err(error) => self.log_down(&error),
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
        self.current.send_replace(Some(Arc::clone(&live)));
        let ended = loop {
            let event = tokio::select! {
                event = tokio::time::timeout(STATE_CHECK, events.next()) => event.ok().flatten(),
                () = live.lost() => {
                    self.log_down("no answer in time");
                    break Ended::Lost;
                }
                () = stop.cancelled() => break Ended::Stopped,
            };
            match event {
                // While it is blocked nobody starts a batch; a batch under way runs into its timeout.
                Some(Event::ConnectionBlocked(reason)) => {
                    self.log_down(&format!("blocked by the broker: {reason}"));
                    self.current.send_replace(None);
                }
                Some(Event::ConnectionUnblocked) => {
                    self.log_connected();
                    self.current.send_replace(Some(Arc::clone(&live)));
                }
                Some(Event::Error(error)) if !live.is_usable() => {
                    self.log_down(&error.to_string());
                    break Ended::Lost;
                }
                _ if !live.is_usable() => {
                    self.log_down("connection lost");
                    break Ended::Lost;
                }
                _ => {}
            }
        };
        self.current.send_replace(None);
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

    fn log_down(&mut self, error: &str) {
        if self.down_since.is_none() {
            self.down_since = Some(Instant::now());
            let (connection, broker) = (&self.name, &self.broker);
            tracing::warn!(
                connection,
                broker,
                error,
                "broker is away; trying again until it is back"
            );
        }
    }
}

#[derive(PartialEq, Eq)]
enum Ended {
    Lost,
    Stopped,
}
