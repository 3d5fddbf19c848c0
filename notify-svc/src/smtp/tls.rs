//! TLS to the relay.

use std::{io, path::Path, sync::Arc};

use anyhow::Context as _;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// What is needed to encrypt a connection.
#[derive(Clone)]
pub struct Tls {
    connector: TlsConnector,
    server_name: ServerName<'static>,
}

impl Tls {
    /// Trusts the system's authorities, and those in `ca_file` (PEM) as well.
    ///
    /// # Errors
    /// If the file cannot be used or `host` is no name that a certificate could hold.
    pub fn new(host: &str, ca_file: Option<&Path>) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(file) = ca_file {
            let unusable = || format!("SMTP_CA_FILE: cannot use {}", file.display());
            for certificate in CertificateDer::pem_file_iter(file).with_context(unusable)? {
                let certificate = certificate.with_context(unusable)?;
                roots.add(certificate).with_context(unusable)?;
            }
        }
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            server_name: ServerName::try_from(host.to_owned())
                .context("SMTP_URL: not a host name that a certificate could hold")?,
        })
    }

    /// Encrypts a connection.
    ///
    /// # Errors
    /// If the handshake fails, for example because the certificate is not trusted.
    pub async fn encrypt(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.connector
            .connect(self.server_name.clone(), stream)
            .await
    }
}
