//! The SMTP relay: where it is, how it is spoken to, and a pool of connections to it.
//!
//! A small client of our own for one email to one recipient at a time: what a library leaves open is what decides
//! whether an email is sent twice or never. It knows whether the final dot may have left, reads the replies of
//! pipelined commands, and never takes anything that came before TLS for an answer. `reply` reads what a relay says,
//! `domain/reply.rs` judges what it means for the email.

mod address;
mod connection;
mod content;
mod dial;
mod extensions;
mod pool;
mod reply;
mod tls;
mod transaction;
mod wire;

pub use address::{InvalidRelayUrl, RelayUrl, Security};
pub use connection::SmtpTimeouts;
pub use pool::{PooledConnection, SmtpLogin, SmtpSettings, SmtpTransport};
