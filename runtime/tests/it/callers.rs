//! The gRPC server with TLS and client certificates, and files that change while it runs.

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
    io::AsyncReadExt as _,
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
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
};
use usher_runtime::{callers::Callers, config::ServerArgs, server};

/// Longer than changed files take to be read.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Parser)]
struct Settings {
    #[command(flatten)]
    server: ServerArgs,
}

/// Who signs certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
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
    fn sign(&self, names: &[&str], usage: ExtendedKeyUsagePurpose) -> (String, String) {
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

    fn server(&self) -> (String, String) {
        self.sign(&["localhost"], ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn client(&self, names: &[&str]) -> (String, String) {
        self.sign(names, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A client that trusts this authority, with a certificate or without.
    fn connector(&self, identity: Option<&(String, String)>) -> TlsConnector {
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

/// A server with mutual TLS, which serves health and reflection.
struct TestServer {
    directory: TempDir,
    address: SocketAddr,
    _stop: DropGuard,
}

impl TestServer {
    async fn start(authority: &Authority, grants: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        let settings = Settings::parse_from([
            "test".to_owned(),
            format!("--tls-certificate-file={}", path("server.pem")),
            format!("--tls-key-file={}", path("server.key")),
            format!("--tls-client-ca-file={}", path("clients.pem")),
            format!("--caller-grants-file={}", path("grants.json")),
        ]);
        write(&directory, "grants.json", grants);
        write(&directory, "clients.pem", &authority.pem);
        let (certificate, key) = authority.server();
        write(&directory, "server.pem", &certificate);
        write(&directory, "server.key", &key);

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let callers = Callers::from_args(&settings.server.callers).unwrap();
        let (_, health) = tonic_health::server::health_reporter();
        let mut routes = Routes::new(health);
        server::add_reflection(&mut routes).unwrap();
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
    async fn answer(&self, connector: &TlsConnector) -> Code {
        let channel = channel(self.address, connector.clone());
        let requests = tokio_stream::once(ServerReflectionRequest::default());
        let mut client = ServerReflectionClient::new(channel);
        match client.server_reflection_info(requests).await {
            Ok(_) => Code::Ok,
            Err(status) => status.code(),
        }
    }

    async fn until_answer(&self, connector: &TlsConnector, code: Code) {
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

fn write(directory: &TempDir, name: &str, content: &str) {
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

fn channel(address: SocketAddr, connector: TlsConnector) -> Channel {
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

const GRANTS: &str =
    r#"{"spiffe://example.org/portal": {"scopes": []}, "portal.example.org": {"scopes": []}}"#;
const URI: &str = "spiffe://example.org/portal";

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_lets_in_by_its_one_name() {
    let authority = Authority::new("one");
    let server = TestServer::start(&authority, GRANTS).await;
    let answer = async |names: &[&str]| {
        let identity = authority.client(names);
        server.answer(&authority.connector(Some(&identity))).await
    };
    assert_eq!(answer(&[URI]).await, Code::Ok);
    // A URI counts for more than a DNS name.
    assert_eq!(answer(&["other.example.org", URI]).await, Code::Ok);
    assert_eq!(answer(&["portal.example.org"]).await, Code::Ok);
    for stranger in [
        &["spiffe://example.org/other"][..],
        &["spiffe://example.org/other", "portal.example.org"],
        &[URI, "spiffe://example.org/other"],
        &["portal.example.org", "other.example.org"],
        &[],
    ] {
        assert_eq!(
            answer(stranger).await,
            Code::Unauthenticated,
            "{stranger:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_good_certificate_is_not_taken() {
    let (authority, stranger) = (Authority::new("one"), Authority::new("two"));
    let server = TestServer::start(&authority, GRANTS).await;
    let foreign = stranger.client(&[URI]);
    let of_a_server = authority.sign(&[URI], ExtendedKeyUsagePurpose::ServerAuth);
    for identity in [None, Some(&foreign), Some(&of_a_server)] {
        let channel = channel(server.address, authority.connector(identity));
        // Health too: who has no certificate does not even get to ask.
        let health = HealthClient::new(channel)
            .check(HealthCheckRequest::default())
            .await;
        assert!(health.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_authority_and_a_removed_grant_shut_out() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let server = TestServer::start(&old, GRANTS).await;
    let old_identity = old.client(&[URI]);
    // One connector for all: it offers to resume the sessions that it had.
    let old_client = old.connector(Some(&old_identity));
    server.until_answer(&old_client, Code::Ok).await;

    // The server's own certificate stays, so that only the removed authority can be what shuts out.
    write(&server.directory, "clients.pem", &new.pem);
    let new_identity = new.client(&[URI]);
    let new_client = old.connector(Some(&new_identity));
    server.until_answer(&new_client, Code::Ok).await;
    assert_ne!(server.answer(&old_client).await, Code::Ok);

    write(&server.directory, "grants.json", "{}");
    server
        .until_answer(&new_client, Code::Unauthenticated)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_presented_and_a_broken_one_is_not() {
    let (authority, next) = (Authority::new("one"), Authority::new("two"));
    let server = TestServer::start(&authority, GRANTS).await;
    let identity = authority.client(&[URI]);
    let (certificate, key) = next.server();
    // Certificate and key do not belong together: the old pair stays.
    write(&server.directory, "server.pem", &certificate);
    let client = authority.connector(Some(&identity));
    assert_eq!(server.answer(&client).await, Code::Ok);

    write(&server.directory, "server.key", &key);
    let client = next.connector(Some(&identity));
    server.until_answer(&client, Code::Ok).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_handshake_ends_and_holds_up_nobody() {
    let authority = Authority::new("one");
    let server = TestServer::start(&authority, GRANTS).await;
    let mut stalled = TcpStream::connect(server.address).await.unwrap();
    let identity = authority.client(&[URI]);
    let client = authority.connector(Some(&identity));
    assert_eq!(server.answer(&client).await, Code::Ok);
    let end = tokio::time::timeout(PATIENCE, stalled.read(&mut [0; 1])).await;
    assert!(matches!(end, Ok(Ok(0) | Err(_))), "{end:?}");
}
