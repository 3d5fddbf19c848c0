//! A connection from which no more is read than a reply may hold: a relay could send one without an end, and it is
//! kept in memory until its end comes.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use lettre::transport::smtp::client::AsyncTokioStream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// Most that is read in answer to one command, in bytes; for a handshake, certificates included. RFC 5321, section
/// 4.5.3.1.5, has 512 for each line. Not much more: whoever reads a reply of many lines begins anew with each line.
const MAX_REPLY_BYTES: usize = 32 * 1024;

/// How much may still be read. Clones share it.
#[derive(Debug, Clone)]
pub struct Allowance(Arc<AtomicUsize>);

impl Allowance {
    /// For the greeting.
    pub fn new() -> Self {
        Self(Arc::new(AtomicUsize::new(MAX_REPLY_BYTES)))
    }

    /// For the next command.
    pub fn renew(&self) {
        self.0.store(MAX_REPLY_BYTES, Ordering::Relaxed);
    }

    /// Whether a reply was too long. The connection is of no use then.
    pub fn is_used_up(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

/// A TCP connection with an allowance.
#[derive(Debug)]
pub struct BoundedStream {
    tcp: TcpStream,
    allowance: Allowance,
}

impl BoundedStream {
    pub fn new(tcp: TcpStream, allowance: Allowance) -> Self {
        Self { tcp, allowance }
    }
}

impl AsyncTokioStream for BoundedStream {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.peer_addr()
    }
}

impl AsyncRead for BoundedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let allowed = self.allowance.0.load(Ordering::Relaxed);
        if allowed == 0 {
            let error = io::Error::new(io::ErrorKind::InvalidData, "the reply is too long");
            return Poll::Ready(Err(error));
        }
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.tcp).poll_read(context, buffer);
        let left = allowed.saturating_sub(buffer.filled().len() - before);
        self.allowance.0.store(left, Ordering::Relaxed);
        result
    }
}

impl AsyncWrite for BoundedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}
