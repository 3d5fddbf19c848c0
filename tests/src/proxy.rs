//! A network that fails: a TCP proxy in front of a server.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};
use url::Url;

/// A TCP proxy that cuts, holds, refuses or swallows. It ends with its owner.
#[derive(Debug)]
pub struct Proxy {
    url: Url,
    control: watch::Sender<Control>,
    held: Held,
}

/// What the proxy does with what it is to carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Forwards it.
    Forward,
    /// Keeps it until the mode changes: connections stay open and carry nothing.
    Hold,
    /// Closes connections as soon as they are made.
    Refuse,
}

#[derive(Debug, Clone, Copy)]
struct Control {
    mode: Mode,
    cuts: u64,
    silences: u64,
}

/// The connections that clients have not closed, each as the number of silences before it was made.
type Held = Arc<Mutex<Vec<u64>>>;

impl Proxy {
    /// A proxy in front of the server that `url` names.
    ///
    /// # Errors
    /// If `url` names no server, or no port is free.
    pub async fn in_front_of(url: &str) -> anyhow::Result<Self> {
        let mut url = Url::parse(url)?;
        let default_port = match url.scheme() {
            "amqp" => Some(5672),
            "postgres" | "postgresql" => Some(5432),
            _ => None,
        };
        let host = url.host_str().context("a URL without a host")?.to_owned();
        let port = url
            .port()
            .or(default_port)
            .context("a URL without a port")?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        // Neither fails for a URL with a host.
        let _ = url.set_ip_host(address.ip());
        let _ = url.set_port(Some(address.port()));
        let (control, state) = watch::channel(Control {
            mode: Mode::Forward,
            cuts: 0,
            silences: 0,
        });
        let held = Held::default();
        tokio::spawn(accept(listener, (host, port), state, Arc::clone(&held)));
        Ok(Self { url, control, held })
    }

    /// The URL of the server, by way of this proxy.
    #[must_use]
    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    /// What is carried from now on.
    pub fn set(&self, mode: Mode) {
        self.control.send_modify(|control| control.mode = mode);
    }

    /// From now on the connections that are open swallow what is sent, in both directions, and never end; new
    /// ones work.
    pub fn silence(&self) {
        self.control.send_modify(|control| control.silences += 1);
    }

    /// How many connections that swallow everything the client has not closed yet.
    #[must_use]
    pub fn swallowing(&self) -> usize {
        let silences = self.control.borrow().silences;
        lock(&self.held)
            .iter()
            .filter(|made| **made < silences)
            .count()
    }

    /// Ends every connection.
    pub fn cut(&self) {
        self.control.send_modify(|control| control.cuts += 1);
    }
}

async fn accept(
    listener: TcpListener,
    upstream: (String, u16),
    state: watch::Receiver<Control>,
    held: Held,
) {
    while let Ok((client, _)) = listener.accept().await {
        if state.borrow().mode != Mode::Refuse {
            let (upstream, state, held) = (upstream.clone(), state.clone(), Arc::clone(&held));
            tokio::spawn(carry(client, upstream, state, held));
        }
    }
}

async fn carry(
    client: TcpStream,
    upstream: (String, u16),
    state: watch::Receiver<Control>,
    held: Held,
) {
    let Ok(server) = TcpStream::connect(upstream).await else {
        return;
    };
    let Control { cuts, silences, .. } = *state.borrow();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    lock(&held).push(silences);
    let mut cut = state.clone();
    tokio::select! {
        () = async {
            pump(&mut from_client, &mut to_server, state.clone()).await;
            release(&held, silences);
            unless_silent(&state, silences).await;
        } => {}
        () = async {
            pump(&mut from_server, &mut to_client, state.clone()).await;
            unless_silent(&state, silences).await;
        } => release(&held, silences),
        _ = cut.wait_for(|control| control.cuts != cuts) => release(&held, silences),
    }
}

fn lock(held: &Held) -> MutexGuard<'_, Vec<u64>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

fn release(held: &Held, silences: u64) {
    let mut held = lock(held);
    if let Some(at) = held.iter().position(|made| *made == silences) {
        held.swap_remove(at);
    }
}

/// Returns at once, unless the connection swallows: then one side does not learn that the other has gone.
async fn unless_silent(state: &watch::Receiver<Control>, silences: u64) {
    if state.borrow().silences != silences {
        std::future::pending::<()>().await;
    }
}

async fn pump(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    mut state: watch::Receiver<Control>,
) {
    let mut buffer = vec![0; 64 * 1024];
    let silences = state.borrow().silences;
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if state.borrow().silences != silences {
            continue;
        }
        if state
            .wait_for(|control| control.mode != Mode::Hold)
            .await
            .is_err()
            || to.write_all(&buffer[..count]).await.is_err()
        {
            return;
        }
    }
}
