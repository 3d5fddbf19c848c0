//! Both services in this process.

use anyhow::Result;
use notify_svc::local_inbox::LocalInbox;
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use usher_runtime::seal::PrivateKey;

/// What the services need around them.
pub(crate) struct Surroundings {
    pub(crate) account_database: SecretString,
    pub(crate) notify_database: SecretString,
    pub(crate) token_key: PrivateKey,
    /// `None`: the bus in this process.
    pub(crate) amqp_url: Option<SecretString>,
    /// `None`: the local inbox.
    pub(crate) smtp_url: Option<SecretString>,
}

impl Surroundings {
    pub(crate) async fn migrate(&self) -> Result<()> {
        Ok(())
    }
}

pub(crate) struct Services {
    inbox: Option<LocalInbox>,
}

impl Services {
    pub(crate) async fn start(
        surroundings: &Surroundings,
        account: TcpListener,
        notify: TcpListener,
        stop: CancellationToken,
    ) -> Result<Self> {
        Ok(Self {
            inbox: Some(LocalInbox::new()),
        })
    }
    pub(crate) fn inbox(&self) -> Option<LocalInbox> {
        self.inbox.clone()
    }
    pub(crate) async fn ended(&mut self) -> anyhow::Error {
        std::future::pending().await
    }
    pub(crate) async fn stop(self) -> Result<()> {
        Ok(())
    }
}
