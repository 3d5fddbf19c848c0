//! A bounded pool of connections to the relay.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use secrecy::SecretString;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::{
    RelayUrl, Security,
    connection::{Connection, SmtpTimeouts},
    tls::Tls,
};
use crate::{
    domain::Reply,
    mail::{MailConnection, MailTransport, OutgoingMail, SendError},
};

/// The relay and how it is used.
#[derive(Clone)]
pub struct SmtpSettings {
    /// Where it is.
    pub url: RelayUrl,
    /// The name in EHLO.
    pub ehlo_name: String,
    /// Login; `None` sends without.
    pub login: Option<SmtpLogin>,
    /// Authorities to trust besides the system's (PEM).
    pub ca_file: Option<PathBuf>,
    /// Most connections.
    pub max_connections: usize,
    /// Emails after which a connection is closed.
    pub max_mails_per_connection: u32,
    /// Time after which an unused connection is closed.
    pub idle_timeout: Duration,
    /// How long the relay may take.
    pub timeouts: SmtpTimeouts,
}

/// A login at the relay.
#[derive(Clone)]
pub struct SmtpLogin {
    /// User name.
    pub username: String,
    /// Password.
    pub password: SecretString,
    /// Send the password over a connection that is not encrypted.
    pub allow_plaintext: bool,
}

/// Sends through an SMTP relay. Clones share the connections.
#[derive(Clone)]
pub struct SmtpTransport(Arc<Pool>);

struct Pool {
    settings: SmtpSettings,
    tls: Option<Tls>,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
}

impl SmtpTransport {
    /// Makes a pool that connects when the first email goes.
    ///
    /// # Errors
    /// If the CA file cannot be used.
    pub fn new(settings: SmtpSettings) -> anyhow::Result<Self> {
        let tls = match settings.url.security {
            Security::Plaintext => None,
            _ => Some(Tls::new(&settings.url.host, settings.ca_file.as_deref())?),
        };
        Ok(Self(Arc::new(Pool {
            permits: Arc::new(Semaphore::new(settings.max_connections)),
            idle: Mutex::default(),
            settings,
            tls,
        })))
    }
}

impl MailTransport for SmtpTransport {
    type Connection = PooledConnection;

    fn name(&self) -> String {
        self.0.settings.url.to_string()
    }

    async fn connect(&self) -> Result<PooledConnection, SendError> {
        let pool = Arc::clone(&self.0);
        let permit = Arc::clone(&pool.permits)
            .acquire_owned()
            .await
            .map_err(|_| SendError::Relay("the pool is closed".to_owned()))?;
        let connection = match pool.take_idle() {
            Some(connection) => connection,
            None => {
                pool.open(Instant::now() + pool.settings.timeouts.longest_open())
                    .await?
            }
        };
        Ok(PooledConnection {
            connection,
            pool,
            permit,
        })
    }
}

impl Pool {
    async fn open(&self, deadline: Instant) -> Result<Connection, SendError> {
        Connection::open(&self.settings, self.tls.as_ref(), deadline).await
    }

    /// The connection that was used last: the others grow old and are dropped.
    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = idle.pop()?;
        self.is_young(&connection).then_some(connection)
    }

    fn is_young(&self, connection: &Connection) -> bool {
        connection.used.elapsed() < self.settings.idle_timeout
    }

    fn give_back(&self, connection: Connection) {
        if connection.sent >= self.settings.max_mails_per_connection {
            tokio::spawn(connection.quit());
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|connection| self.is_young(connection));
        idle.push(connection);
    }
}

/// A connection that goes back to the pool after an email if it is still in step.
pub struct PooledConnection {
    connection: Connection,
    pool: Arc<Pool>,
    permit: OwnedSemaphorePermit,
}

impl MailConnection for PooledConnection {
    async fn send(mut self, mail: &OutgoingMail) -> Result<Reply, SendError> {
        let deadline = Instant::now() + self.pool.settings.timeouts.longest_send();
        let mut result = self.connection.send(mail, deadline).await;
        if result == Err(SendError::Stale) {
            // A new connection is never stale, so this happens once.
            self.connection = self.pool.open(deadline).await?;
            result = self.connection.send(mail, deadline).await;
        }
        if self.connection.is_usable() {
            self.pool.give_back(self.connection);
        }
        drop(self.permit);
        result
    }
}
