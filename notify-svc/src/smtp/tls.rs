//! TLS to the relay.

use std::{
    io,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use anyhow::Context as _;
use lettre::transport::smtp::client::{AsyncTokioStream, Certificate, TlsParameters};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;

use super::bounded::BoundedStream;

/// What is needed to encrypt a connection, for both ways to begin it.
#[derive(Clone)]
pub struct Tls {
    /// For STARTTLS, which lettre speaks.
    pub upgrade: TlsParameters,
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
        let mut start_tls = TlsParameters::builder(host.to_owned());
        if let Some(file) = ca_file {
            let unusable = || format!("SMTP_CA_FILE: cannot use {}", file.display());
            for certificate in CertificateDer::pem_file_iter(file).with_context(unusable)? {
                let certificate = certificate.with_context(unusable)?;
                start_tls = start_tls.add_root_certificate(
                    Certificate::from_der(certificate.to_vec()).with_context(unusable)?,
                );
                roots.add(certificate).with_context(unusable)?;
            }
        }
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            upgrade: start_tls.build()?,
            connector: TlsConnector::from(Arc::new(config)),
            server_name: ServerName::try_from(host.to_owned())
                .context("SMTP_URL: not a host name that a certificate could hold")?,
        })
    }

    /// Encrypts a connection from its first byte.
    ///
    /// # Errors
    /// If the handshake fails, for example because the certificate is not trusted.
    pub async fn encrypt(&self, stream: BoundedStream) -> io::Result<TlsStream> {
        let stream = self
            .connector
            .connect(self.server_name.clone(), stream)
            .await?;
        Ok(TlsStream(stream))
    }
}

/// An encrypted stream that lettre takes.
#[derive(Debug)]
pub struct TlsStream(tokio_rustls::client::TlsStream<BoundedStream>);

impl AsyncTokioStream for TlsStream {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.get_ref().0.peer_addr()
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
