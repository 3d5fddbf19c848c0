//! Limits the connections of the server: how many there are, and how long one may take to begin.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, StreamExt as _};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};
use tonic::transport::server::Connected;

/// Longest that a client may take to send what HTTP/2 begins with.
const BEGIN_LIMIT: Duration = Duration::from_secs(10);

/// Bytes that HTTP/2 begins with: the preface, and the header of the SETTINGS frame (RFC 9113, 3.4).
const BEGINNING: usize = 24 + 9;

/// Lets at most `max` connections through at the same time; further ones are closed at once.
pub(super) fn limit<I: Send + 'static, E: Send + 'static>(
    incoming: impl Stream<Item = Result<I, E>>,
    max: usize,
) -> impl Stream<Item = Result<Limited<I>, E>> {
    let permits = Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS)));
    incoming.filter_map(move |connection| {
        let limited = match connection {
            Err(error) => Some(Err(error)),
            Ok(io) => {
                let permit = Arc::clone(&permits).try_acquire_owned().ok();
                if permit.is_none() {
                    tracing::debug!("a connection was refused: there are too many");
                }
                permit.map(|permit| Ok(Limited::new(io, permit)))
            }
        };
        std::future::ready(limited)
    })
}

/// A connection that counts.
pub(super) struct Limited<I> {
    io: I,
    /// While the beginning is not complete: bytes of it that have come, and when the time for it is over.
    beginning: Option<(usize, Pin<Box<Sleep>>)>,
    _permit: OwnedSemaphorePermit,
}

impl<I> Limited<I> {
    fn new(io: I, permit: OwnedSemaphorePermit) -> Self {
        Self {
            io,
            beginning: Some((0, Box::pin(sleep(BEGIN_LIMIT)))),
            _permit: permit,
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Limited<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(context, buffer);
        let Some((received, limit)) = &mut self.beginning else {
            return read;
        };
        *received += buffer.filled().len() - before;
        if *received >= BEGINNING {
            self.beginning = None;
        } else if read.is_pending() && limit.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Limited<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

impl<I: Connected> Connected for Limited<I> {
    type ConnectInfo = I::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.io.connect_info()
    }
}
