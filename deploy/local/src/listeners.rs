//! The sockets that everything listens on, all of them on the loopback interface.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, bail};
use tokio::net::TcpListener;

use crate::config::Args;

/// Sockets that are bound, so that a taken port shows before anything is started.
#[derive(Debug)]
pub(crate) struct Listeners {
    pub(crate) account: TcpListener,
    pub(crate) notify: TcpListener,
    pub(crate) web: TcpListener,
}

/// Where to reach what.
#[derive(Debug, Clone)]
pub(crate) struct Addresses {
    /// account-svc, gRPC.
    pub(crate) account: SocketAddr,
    /// notify-svc, gRPC.
    pub(crate) notify: SocketAddr,
    /// The web page: also the portal that links in emails lead to.
    pub(crate) portal_url: String,
}

impl Listeners {
    /// Binds all of them.
    ///
    /// # Errors
    ///
    /// If a port is taken: with the flag that chooses another.
    pub(crate) async fn bind(args: &Args) -> anyhow::Result<Self> {
        Ok(Self {
            account: bind(args.account_port, "account-svc", "--account-port").await?,
            notify: bind(args.notify_port, "notify-svc", "--notify-port").await?,
            web: bind(args.web_port, "the web page", "--web-port").await?,
        })
    }

    pub(crate) fn addresses(&self) -> anyhow::Result<Addresses> {
        Ok(Addresses {
            account: self.account.local_addr()?,
            notify: self.notify.local_addr()?,
            portal_url: format!("http://localhost:{}", self.web.local_addr()?.port()),
        })
    }
}

async fn bind(port: u16, owner: &str, flag: &str) -> anyhow::Result<TcpListener> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == ErrorKind::AddrInUse => bail!(
            "port {port} of {owner} is taken by another program, or by an Usher that runs already. Stop it, or \
             choose another port, for example `cargo run -- {flag}=0`: 0 takes any free one"
        ),
        Err(error) => Err(error).with_context(|| format!("cannot listen on port {port} ({flag})")),
    }
}
