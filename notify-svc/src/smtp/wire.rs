//! A connection to a relay: bytes out, replies in, each within a time.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::client::TlsStream;

use super::{
    reply::{ReplyParser, ServerReply, Unreadable},
    tls::Tls,
};
use crate::mail::SendError;

/// Bytes that are read at once.
const READ_BYTES: usize = 4096;

/// Why no reply came. The connection is of no use afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoReply {
    /// The relay closed the connection, or the network did.
    #[error("it hung up")]
    HungUp,
    /// The relay took too long.
    #[error("it did not answer in time")]
    TimedOut,
    /// Out of step.
    #[error("its answer is no SMTP reply")]
    NotAReply,
    /// Out of step.
    #[error("its reply is too long")]
    TooLong,
    /// Out of step.
    #[error("it answered what it was not asked")]
    NotAsked,
}

enum Stream {
    Plain(TcpStream),
    Encrypted(Box<TlsStream<TcpStream>>),
}

/// An open connection.
pub struct Wire {
    stream: Stream,
    replies: ReplyParser,
    /// When everything ends, however much time a step has.
    pub deadline: Instant,
}

impl Wire {
    /// Speaks over `stream` until `deadline`.
    pub fn new(stream: TcpStream, deadline: Instant) -> Self {
        Self {
            stream: Stream::Plain(stream),
            replies: ReplyParser::default(),
            deadline,
        }
    }

    /// Whether what is sent is encrypted.
    pub fn is_encrypted(&self) -> bool {
        matches!(self.stream, Stream::Encrypted(_))
    }

    /// Whether the relay has sent nothing that was not read.
    pub fn is_in_step(&self) -> bool {
        self.replies.is_empty()
    }

    /// Begins TLS. Refused if there is anything that was received before: somebody could have written it into the
    /// connection, and it would be taken for something that the relay said over TLS (CVE-2011-0411).
    pub async fn encrypt(self, tls: &Tls, limit: Duration) -> Result<Self, SendError> {
        if !self.is_in_step() {
            return Err(SendError::Relay(
                "it sent something between its answer to STARTTLS and TLS: somebody may have put it there"
                    .to_owned(),
            ));
        }
        let (Stream::Plain(stream), until) =
            (self.stream, self.deadline.min(Instant::now() + limit))
        else {
            return Err(SendError::Relay("TLS has begun already".to_owned()));
        };
        let stream = timeout_at(until, tls.encrypt(stream))
            .await
            .map_err(|_| SendError::Relay("no TLS in time".to_owned()))?
            .map_err(|error| SendError::Relay(handshake_failed(&error)))?;
        Ok(Self {
            stream: Stream::Encrypted(Box::new(stream)),
            replies: ReplyParser::default(),
            deadline: self.deadline,
        })
    }

    /// Writes a command, or several whose replies come in their order.
    pub async fn write(&mut self, commands: &str, limit: Duration) -> Result<(), NoReply> {
        if !self.is_in_step() {
            return Err(NoReply::NotAsked);
        }
        let until = self.deadline.min(Instant::now() + limit);
        let written = self.write_until(commands.as_bytes(), until).await;
        if written == commands.len() {
            Ok(())
        } else if Instant::now() >= until {
            Err(NoReply::TimedOut)
        } else {
            Err(NoReply::HungUp)
        }
    }

    /// Writes as much as can be written until `until`; returns how many bytes may have left. Those after them have
    /// not, for certain: the system did not take them, or they are in a TLS record that is incomplete.
    pub async fn write_until(&mut self, bytes: &[u8], until: Instant) -> usize {
        let mut written = 0;
        let write_all = async {
            while written < bytes.len() {
                let rest = &bytes[written..];
                let count = match &mut self.stream {
                    Stream::Plain(stream) => stream.write(rest).await,
                    Stream::Encrypted(stream) => stream.write(rest).await,
                };
                match count {
                    Ok(0) | Err(_) => return,
                    Ok(count) => written += count,
                }
            }
            // What cannot be flushed shows when no reply comes.
            if let Stream::Encrypted(stream) = &mut self.stream {
                let _ = stream.flush().await;
            }
        };
        let _ = timeout_at(until, write_all).await;
        written
    }

    /// Waits for the next reply; `limit` is for the whole of it.
    pub async fn reply(&mut self, limit: Duration) -> Result<ServerReply, NoReply> {
        let until = self.deadline.min(Instant::now() + limit);
        timeout_at(until, self.read_reply())
            .await
            .map_err(|_| NoReply::TimedOut)?
    }

    async fn read_reply(&mut self) -> Result<ServerReply, NoReply> {
        loop {
            match self.replies.next_reply() {
                Ok(Some(reply)) => return Ok(reply),
                Ok(None) => {}
                Err(Unreadable::NotAReply) => return Err(NoReply::NotAReply),
                Err(Unreadable::TooLong) => return Err(NoReply::TooLong),
            }
            let buffer = self.replies.buffer();
            buffer.reserve(READ_BYTES);
            let count = match &mut self.stream {
                Stream::Plain(stream) => stream.read_buf(buffer).await,
                Stream::Encrypted(stream) => stream.read_buf(buffer).await,
            };
            if matches!(count, Ok(0) | Err(_)) {
                return Err(NoReply::HungUp);
            }
        }
    }

    /// A command and its reply.
    pub async fn exchange(
        &mut self,
        command: &str,
        limit: Duration,
    ) -> Result<ServerReply, NoReply> {
        self.write(command, limit).await?;
        self.reply(limit).await
    }
}

/// Names the cause if it is the certificate; the text is rustls's, about the relay alone.
fn handshake_failed(error: &io::Error) -> String {
    let mut cause = String::new();
    if let Some(error) = error
        .get_ref()
        .and_then(|error| error.downcast_ref::<rustls::Error>())
        && matches!(error, rustls::Error::InvalidCertificate(_))
    {
        cause = format!(" ({error})").chars().take(300).collect();
    }
    format!(
        "the TLS handshake failed{cause}; for a certificate of an authority of your own set SMTP_CA_FILE"
    )
}
