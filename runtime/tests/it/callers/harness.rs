//! A server with TLS, the authorities that sign its certificates and those of clients, and its callers.

use std::{fs, net::SocketAddr, sync::Arc, time::Duration};

use clap::Parser;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{
    Code,
    service::Routes,
    transport::{Channel, Endpoint},
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
};
use usher_runtime::{callers::Callers, config::ServerArgs, server};

/// Longer than changed files take to be read.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Settings of the server's own certificate, and names of their files.
pub const CERTIFICATE: &str = "tls-certificate-file";
pub const KEY: &str = "tls-key-file";

#[derive(Parser)]
struct Settings {
    #[command(flatten)]
    server: ServerArgs,
}

/// Who signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// Certificate and key (PEM) for DNS names and URIs.
    pub fn sign(&self, names: &[&str], usage: ExtendedKeyUsagePurpose) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = names
            .iter()
            .map(|name| {
                if name.contains("://") {
                    SanType::URI((*name).try_into().unwrap())
                } else {
                    SanType::DnsName((*name).try_into().unwrap())
                }
            })
            .collect();
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    pub fn server(&self) -> (String, String) {
        self.sign(&["localhost"], ExtendedKeyUsagePurpose::ServerAuth)
    }

    pub fn client(&self, names: &[&str]) -> (String, String) {
        self.sign(names, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A client that trusts this authority, with a certificate or without.
    pub fn connector(&self, identity: Option<&(String, String)>) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap();
        roots.add(certificate).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => builder
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                    PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
                )
                .unwrap(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsConnector::from(Arc::new(config))
    }
}

/// A server with TLS, which serves health and reflection.
pub struct TestServer {
    pub directory: TempDir,
    pub address: SocketAddr,
    _stop: DropGuard,
}

impl TestServer {
    /// With a certificate that `authority` signs, and further settings: `files` in its directory by the names of
    /// their settings, with their contents, and others.
    pub async fn start(authority: &Authority, files: &[(&str, &str)], others: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        let (certificate, key) = authority.server();
        let own = [(CERTIFICATE, certificate.as_str()), (KEY, key.as_str())];
        let mut arguments = vec!["test".to_owned()];
        for (setting, content) in own.iter().chain(files) {
            write(&directory, setting, content);
            let path = directory.path().join(setting);
            arguments.push(format!("--{setting}={}", path.display()));
        }
        arguments.extend(others.iter().map(|setting| (*setting).to_owned()));
        let settings = Settings::parse_from(arguments);

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let callers = Callers::from_args(&settings.server.callers).unwrap();
        let (_, health) = tonic_health::server::health_reporter();
        let mut routes = Routes::new(health);
        server::add_reflection(&mut routes, "account-svc").unwrap();
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        tokio::spawn(async move {
            server::serve(listener, routes, callers, &settings.server, stop).await
        });
        Self {
            directory,
            address,
            _stop: guard,
        }
    }

    /// What somebody gets who asks for reflection, over a new connection.
    pub async fn answer(&self, connector: &TlsConnector) -> Code {
        self.answer_to(connector, "").await
    }

    /// The same for somebody with this token, if it is not empty.
    pub async fn answer_to(&self, connector: &TlsConnector, token: &str) -> Code {
        let channel = channel(self.address, connector.clone());
        let requests = tokio_stream::once(ServerReflectionRequest::default());
        let mut request = tonic::Request::new(requests);
        if !token.is_empty() {
            let value = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        let mut client = ServerReflectionClient::new(channel);
        match client.server_reflection_info(request).await {
            Ok(_) => Code::Ok,
            Err(status) => status.code(),
        }
    }

    pub async fn until_answer(&self, connector: &TlsConnector, code: Code) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.answer(connector).await;
            if answer == code {
                return;
            }
            assert!(Instant::now() < deadline, "{answer:?} and not {code:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

pub fn write(directory: &TempDir, name: &str, content: &str) {
    fs::write(directory.path().join(name), content).unwrap();
}

async fn connect(
    address: SocketAddr,
    connector: TlsConnector,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    connector.connect(name, stream).await
}

pub fn channel(address: SocketAddr, connector: TlsConnector) -> Channel {
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(tower::service_fn(
        move |_| {
            let connector = connector.clone();
            async move {
                let stream = connect(address, connector).await?;
                Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
            }
        },
    ))
}
