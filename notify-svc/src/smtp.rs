//! The SMTP relay: where it is, how it is spoken to, and a pool of connections to it.
//!
//! The protocol and its parser are lettre's; the pool is ours. lettre's own cannot be told how many
//! connections to open, gives no timeout to a single command, and returns a connection that is out of
//! step to the pool when a `send` is cancelled.

mod address;
mod bounded;
mod connection;
mod pool;
mod tls;

pub use address::{InvalidRelayUrl, RelayUrl, Security};
pub use connection::SmtpTimeouts;
pub use pool::{PooledConnection, SmtpLogin, SmtpSettings, SmtpTransport};
