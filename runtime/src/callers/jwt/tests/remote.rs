//! Keys at a URL.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::*;

/// An issuer's web server.
struct Website {
    url: String,
    /// PEM of the certificate that it presents.
    authority: String,
    /// What it answers: a status line and a body.
    answer: Arc<Mutex<(&'static str, String)>>,
    asked: Arc<AtomicUsize>,
}

impl Website {
    async fn start(content: String) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()])
            .unwrap()
            .self_signed(&key)
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap(),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answer = Arc::new(Mutex::new(("200 OK", content)));
        let asked = Arc::<AtomicUsize>::default();
        let (answers, count) = (Arc::clone(&answer), Arc::clone(&asked));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => request.push(byte),
                        Err(_) => break,
                    }
                }
                count.fetch_add(1, Ordering::Relaxed);
                let (status, body) = answers.lock().unwrap().clone();
                let response = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(response.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        Self {
            url: format!("https://localhost:{port}/jwks.json"),
            authority: certificate.pem(),
            answer,
            asked,
        }
    }

    fn answer(&self, status: &'static str, body: String) {
        *self.answer.lock().unwrap() = (status, body);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// Keys from here, fetched at these intervals.
    fn keys(&self, refresh: Duration, minimum: Duration) -> Arc<Keys> {
        let directory = TempDir::new().unwrap();
        let authority = directory.path().join("ca.pem");
        fs::write(&authority, &self.authority).unwrap();
        let args = CallerArgs {
            jwt_jwks_url: Some(self.url.parse().unwrap()),
            jwt_ca_file: Some(authority),
            ..expected()
        };
        let mut keys = Keys::from_args(&args).unwrap().unwrap();
        keys.set_intervals(refresh, minimum);
        let keys = Arc::new(keys);
        let follower = Arc::clone(&keys);
        tokio::spawn(async move { follower.follow_changes().await });
        keys
    }
}

const NEVER: Duration = Duration::from_hours(1);

#[tokio::test]
async fn an_unknown_key_is_fetched_and_not_more_often_than_allowed() {
    let (old, new) = (Signer::ed("old"), Signer::ec("new"));
    let website = Website::start(set(&[old.jwk()])).await;
    let keys = website.keys(NEVER, Duration::from_millis(300));
    // The first call waits for the first fetch.
    let old_token = bearer_headers(&old.sign(&claims()));
    assert!(caller(&keys, &old_token).await.is_ok());
    assert_eq!(website.asked(), 1);

    let new_token = bearer_headers(&new.sign(&claims()));
    for _ in 0..50 {
        assert!(caller(&keys, &new_token).await.is_err());
    }
    assert!(website.asked() <= 2, "{}", website.asked());

    website.answer("200 OK", set(&[old.jwk(), new.jwk()]));
    until_accepted(&keys, &new.sign(&claims()), true).await;
    assert!(caller(&keys, &old_token).await.is_ok());
}

#[tokio::test]
async fn a_removed_key_is_refused_after_the_next_fetch() {
    let (old, new) = (Signer::ed("old"), Signer::ed("new"));
    let website = Website::start(set(&[old.jwk()])).await;
    let keys = website.keys(Duration::from_millis(50), Duration::from_millis(50));
    let token = old.sign(&claims());
    until_accepted(&keys, &token, true).await;
    website.answer("200 OK", set(&[new.jwk()]));
    until_accepted(&keys, &token, false).await;
}

#[tokio::test]
async fn the_last_keys_stay_while_the_issuer_fails() {
    let signer = Signer::ed("d");
    let website = Website::start(set(&[signer.jwk()])).await;
    let keys = website.keys(Duration::from_millis(20), Duration::from_millis(20));
    let token = signer.sign(&claims());
    until_accepted(&keys, &token, true).await;
    let too_large = format!("{} {}", set(&[]), " ".repeat(64 * 1024));
    for (status, body) in [
        ("500 Internal Server Error", set(&[])),
        ("302 Found", set(&[])),
        ("200 OK", "{".to_owned()),
        ("200 OK", too_large),
    ] {
        website.answer(status, body);
        let asked = website.asked();
        let deadline = Instant::now() + PATIENCE;
        while website.asked() < asked + 3 {
            assert!(Instant::now() < deadline, "not asked again");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(
            caller(&keys, &bearer_headers(&token)).await.is_ok(),
            "{status}"
        );
    }
}

#[tokio::test]
async fn a_certificate_of_a_stranger_and_plain_http_are_refused() {
    let signer = Signer::ed("d");
    let website = Website::start(set(&[signer.jwk()])).await;
    let stranger = Website::start(String::new()).await;
    let keys = Website {
        authority: stranger.authority,
        ..website
    }
    .keys(NEVER, NEVER);
    let token = bearer_headers(&signer.sign(&claims()));
    assert_eq!(caller(&keys, &token).await, Err(Refusal("unknown_key")));

    let args = CallerArgs {
        jwt_jwks_url: Some("http://localhost/jwks.json".parse().unwrap()),
        ..expected()
    };
    let error = Keys::from_args(&args).unwrap_err().to_string();
    assert!(error.contains("https://"), "{error}");
}
