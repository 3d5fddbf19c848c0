//! A bounded pool of connections to the relay.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use secrecy::SecretString;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    RelayUrl, Security,
    connection::{Connection, SmtpTimeouts},
    tls::Tls,
};
use crate::{
    domain::Reply,
    mail::{MailConnection, MailTransport, OutgoingMail, SendError},
};

/// An idle connection younger than this is used without asking the relay whether it is still there.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

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
        while let Some(mut connection) = pool.take_idle() {
            let idle = connection.used.elapsed();
            if idle < TRUSTED_IDLE
                || idle < pool.settings.idle_timeout && connection.is_alive().await
            {
                return Ok(PooledConnection {
                    connection,
                    pool,
                    permit,
                });
            }
        }
        let connection = Connection::open(&pool.settings, pool.tls.as_ref()).await?;
        Ok(PooledConnection {
            connection,
            pool,
            permit,
        })
    }
}

impl Pool {
    /// The connection that was used last: the others grow old and are dropped.
    fn take_idle(&self) -> Option<Connection> {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
    }

    fn give_back(&self, connection: Connection) {
        if connection.sent >= self.settings.max_mails_per_connection {
            tokio::spawn(connection.quit());
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|connection| connection.used.elapsed() < self.settings.idle_timeout);
        idle.push(connection);
    }
}

/// A connection that goes back to the pool after an email if it is still in step.
pub struct PooledConnection {
    connection: Connection,
    pool: Arc<Pool>,
    permit: OwnedSemaphorePermit,
}

impl PooledConnection {
    fn give_back(self) {
        self.pool.give_back(self.connection);
        drop(self.permit);
    }
}

impl MailConnection for PooledConnection {
    async fn send(mut self, mail: &OutgoingMail) -> Result<Reply, SendError> {
        let result = self.connection.send(mail).await;
        match &result {
            Ok(_) => self.give_back(),
            // 421: the relay closes the connection (RFC 5321, section 3.8).
            Err(SendError::Refused { reply, .. }) if reply.code == 421 => {}
            Err(SendError::Refused { .. } | SendError::NeedsSmtpUtf8) => {
                if self.connection.reset().await {
                    self.give_back();
                }
            }
            // Out of step: dropped.
            Err(SendError::Relay(_) | SendError::Interrupted | SendError::AnswerLost) => {}
        }
        result
    }
}
