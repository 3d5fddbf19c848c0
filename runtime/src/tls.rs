//! Connections of the gRPC server, with or without TLS, and who is at their other end.

use std::{
    io,
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
    task::{Context, Poll},
    time::Duration,
};

use anyhow::Context as _;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::either::Either;
use tonic::transport::server::Connected;

use crate::{config::TlsArgs, watched_files::WatchedFiles};

/// Longest that a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// TLS handshakes at the same time; further connections wait in the kernel's queue.
const MAX_HANDSHAKES: usize = 1024;

/// Pause after a connection could not be accepted, mostly because no file descriptor was free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The certificates of the server, as they are at the moment.
#[derive(Debug)]
pub(crate) struct Tls {
    files: WatchedFiles,
    /// Replaced as a whole: with it goes the session store, from which a client whose authority was removed
    /// could resume.
    current: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// TLS as the settings want it; `None` without a certificate.
    ///
    /// # Errors
    /// If a file is missing, cannot be read or cannot be used; the message names the setting.
    pub(crate) fn from_args(args: &TlsArgs) -> anyhow::Result<Option<Self>> {
        let (certificate, key) = match (&args.tls_certificate_file, &args.tls_key_file) {
            (Some(certificate), Some(key)) => (certificate, key),
            (None, None) if args.tls_client_ca_file.is_some() => {
                anyhow::bail!("TLS_CLIENT_CA_FILE needs TLS_CERTIFICATE_FILE and TLS_KEY_FILE")
            }
            (None, None) => return Ok(None),
            _ => anyhow::bail!("set both of TLS_CERTIFICATE_FILE and TLS_KEY_FILE, or neither"),
        };
        let mut files = vec![
            ("TLS_CERTIFICATE_FILE", certificate.clone()),
            ("TLS_KEY_FILE", key.clone()),
        ];
        if let Some(authorities) = &args.tls_client_ca_file {
            files.push(("TLS_CLIENT_CA_FILE", authorities.clone()));
        }
        let (files, contents) = WatchedFiles::read(files)?;
        let current = RwLock::new(Arc::new(server_config(&contents)?));
        Ok(Some(Self { files, current }))
    }

    /// Takes over the files whenever they change; never ends.
    pub(crate) async fn follow_files(&self) {
        self.files
            .follow(|contents| {
                let config = Arc::new(server_config(contents)?);
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
                Ok(())
            })
            .await;
    }

    fn acceptor(&self) -> TlsAcceptor {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&current))
    }
}

/// From the contents of certificate, key and, for mutual TLS, the clients' authorities.
fn server_config(contents: &[Vec<u8>]) -> anyhow::Result<ServerConfig> {
    let [certificate, key, authorities @ ..] = contents else {
        anyhow::bail!("no certificate");
    };
    let chain = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<Vec<_>, _>>()
        .context("TLS_CERTIFICATE_FILE")?;
    let key = PrivateKeyDer::from_pem_slice(key).context("TLS_KEY_FILE")?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match authorities {
        [] => builder.with_no_client_auth(),
        [authorities, ..] => builder.with_client_cert_verifier(
            client_verifier(authorities, provider).context("TLS_CLIENT_CA_FILE")?,
        ),
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .context("TLS_CERTIFICATE_FILE, TLS_KEY_FILE")?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn client_verifier(
    authorities: &[u8],
    provider: Arc<CryptoProvider>,
) -> anyhow::Result<Arc<dyn rustls::server::danger::ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(authorities) {
        roots.add(authority?)?;
    }
    Ok(WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?)
}

/// Who is at the other end of a connection. In the extensions of each of its requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    /// The name in the verified certificate; `None` without one, or if it holds no name or several.
    pub(crate) certificate_name: Option<Arc<str>>,
}

/// A connection of the gRPC server.
pub(crate) struct Connection {
    io: Either<TcpStream, Box<TlsStream<TcpStream>>>,
    peer: Peer,
}

impl Connection {
    fn plain(stream: TcpStream) -> Self {
        Self {
            io: Either::Left(stream),
            peer: Peer {
                certificate_name: None,
            },
        }
    }

    fn encrypted(stream: TlsStream<TcpStream>) -> Self {
        let certificates = stream.get_ref().1.peer_certificates();
        let certificate_name = certificates
            .and_then(|chain| name_in(chain.first()?))
            .map(Arc::from);
        Self {
            io: Either::Right(Box::new(stream)),
            peer: Peer { certificate_name },
        }
    }
}

/// The URI among the alternative names of a certificate; if there is none, the DNS name. As SPIFFE does
/// (X509-SVID, section 2), a certificate with several names is taken for nobody's.
fn name_in(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    let mut uris = certificate.valid_uri_names();
    let mut names = certificate.valid_dns_names();
    let (first, second) = match uris.next() {
        Some(uri) => (uri, uris.next()),
        None => (names.next()?, names.next()),
    };
    second.is_none().then(|| first.to_owned())
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

/// The connections of a listener, until the stream is dropped.
pub(crate) fn incoming(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
) -> ReceiverStream<io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(accept(listener, tls, sender));
    ReceiverStream::new(receiver)
}

async fn accept(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    connections: mpsc::Sender<io::Result<Connection>>,
) {
    let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    loop {
        let Ok(handshake) = Arc::clone(&handshakes).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            () = connections.closed() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Otherwise each answer would wait 40 ms. It fails only for a connection that is gone.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &tls else {
            if connections
                .send(Ok(Connection::plain(stream)))
                .await
                .is_err()
            {
                return;
            }
            continue;
        };
        let acceptor = tls.acceptor();
        let connections = connections.clone();
        tokio::spawn(async move {
            let result = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await;
            drop(handshake);
            match result {
                Ok(Ok(stream)) => {
                    let _ = connections.send(Ok(Connection::encrypted(stream))).await;
                }
                // Also whoever comes without a certificate. Scanners come too: no reason to worry anybody.
                Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                Err(_) => tracing::debug!("a TLS handshake took too long"),
            }
        });
    }
}
