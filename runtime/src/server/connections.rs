//! Accepts connections: limits how many there are, and how long each may take to begin.
//!
//! tonic's own loop neither bounds handshakes nor pauses when no file descriptor is free.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{either::Either, sync::WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use super::places::{Place, Places};
use crate::tls::{Peer, Tls};

/// Longest that a client may take for the TLS handshake, and again to send what HTTP/2 begins with.
const BEGIN_LIMIT: Duration = Duration::from_secs(5);

/// Bytes that HTTP/2 begins with: the preface, and the header of the SETTINGS frame (RFC 9113, 3.4).
const BEGINNING: usize = 24 + 9;

/// Pause after a connection could not be accepted, mostly because no file descriptor was free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Calls of `grpc.health.v1.Health/Watch` over one connection: clients watch one service over each, and there
/// are four to be watched.
const MAX_HEALTH_WATCHES: usize = 4;

/// The connections of a listener, until the stream is dropped.
pub(super) fn incoming(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    max_connections: usize,
) -> ReceiverStream<io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(accept(listener, tls, Places::new(max_connections), sender));
    ReceiverStream::new(receiver)
}

async fn accept(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    places: Arc<Places>,
    connections: mpsc::Sender<io::Result<Connection>>,
) {
    loop {
        let accepted = tokio::select! {
            () = connections.closed() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(place) = places.take() else {
            tracing::debug!("a connection was refused: there are too many");
            continue;
        };
        // In tasks of their own: a slow handshake holds up nobody.
        let (tls, connections) = (tls.clone(), connections.clone());
        tokio::spawn(async move {
            let lost = place.lost();
            tokio::select! {
                () = lost => tracing::debug!("a connection gave way before its handshake was finished"),
                connection = begin(stream, tls, place) => {
                    if let Some(connection) = connection {
                        let _ = connections.send(Ok(connection)).await;
                    }
                }
            }
        });
    }
}

async fn begin(stream: TcpStream, tls: Option<Arc<Tls>>, place: Place) -> Option<Connection> {
    // Otherwise each answer would wait 40 ms. It fails only for a connection that is gone.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else {
        let peer = Peer::unknown();
        return Some(Connection::new(Either::Left(stream), peer, place));
    };
    match timeout(BEGIN_LIMIT, tls.acceptor().accept(stream)).await {
        Ok(Ok(stream)) => {
            let peer = Peer::of(&stream);
            let stream = Either::Right(Box::new(stream));
            Some(Connection::new(stream, peer, place))
        }
        // Also whoever comes without a certificate. Scanners come too: no reason to worry anybody.
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!("a TLS handshake took too long");
            None
        }
    }
}

/// A connection of the gRPC server.
pub(super) struct Connection {
    io: Either<TcpStream, Box<TlsStream<TcpStream>>>,
    peer: Peer,
    health_watches: Arc<Semaphore>,
    place: Arc<Place>,
    lost: Pin<Box<WaitForCancellationFutureOwned>>,
    /// While the beginning is not complete: bytes of it that have come, and when the time for it is over.
    beginning: Option<(usize, Pin<Box<Sleep>>)>,
}

impl Connection {
    fn new(io: Either<TcpStream, Box<TlsStream<TcpStream>>>, peer: Peer, place: Place) -> Self {
        Self {
            io,
            peer,
            health_watches: Arc::new(Semaphore::new(MAX_HEALTH_WATCHES)),
            lost: Box::pin(place.lost()),
            place: Arc::new(place),
            beginning: Some((0, Box::pin(sleep(BEGIN_LIMIT)))),
        }
    }

    /// Fails when the connection has to give way; in whatever it waits for, as a caller may not even read.
    fn poll_place(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.lost.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

/// What a request knows of its connection; in the extensions of each.
#[derive(Debug, Clone)]
pub(super) struct ConnectionInfo {
    pub(super) peer: Peer,
    /// Permits for watching health.
    pub(super) health_watches: Arc<Semaphore>,
    /// Of the connection, which may be gone while its calls go on.
    place: Weak<Place>,
}

impl ConnectionInfo {
    /// A call was let in: from now on the connection gives way to no other.
    pub(super) fn keep(&self) {
        if let Some(place) = self.place.upgrade() {
            place.keep();
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = ConnectionInfo;

    fn connect_info(&self) -> ConnectionInfo {
        ConnectionInfo {
            peer: self.peer.clone(),
            health_watches: Arc::clone(&self.health_watches),
            place: Arc::downgrade(&self.place),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_place(context)?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(context, buffer);
        let Some((received, limit)) = &mut self.beginning else {
            return read;
        };
        *received += buffer.filled().len() - before;
        if *received >= BEGINNING {
            self.beginning = None;
        } else if read.is_pending() {
            ready!(limit.as_mut().poll(context));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_place(context)?;
        Pin::new(&mut self.io).poll_write(context, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_place(context)?;
        Pin::new(&mut self.io).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_place(context)?;
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_place(context)?;
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
