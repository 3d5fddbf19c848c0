//! Bearer tokens over TLS, with client certificates and without.

use aws_lc_rs::{
    encoding::{AsDer as _, Pkcs8V1Der},
    signature::Ed25519KeyPair,
};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp, jwk::Jwk};
use serde_json::json;
use tonic::{Code, transport::Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::harness::{Authority, TestServer};

const ISSUER: &str = "https://issuer.example";
const SETTINGS: [&str; 2] = [
    "--jwt-issuer=https://issuer.example",
    "--jwt-audience=usher",
];

/// A token of an issuer, and the issuer's keys.
fn token_and_keys() -> (String, String) {
    let pair = Ed25519KeyPair::generate().unwrap();
    let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let key = EncodingKey::from_ed_der(der.as_ref());
    let mut jwk = Jwk::from_encoding_key(&key, Algorithm::EdDSA).unwrap();
    jwk.common.key_id = Some("1".to_owned());
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = Some("1".to_owned());
    let expires = get_current_timestamp() + 3600;
    let claims = json!({"iss": ISSUER, "aud": "usher", "sub": "portal", "exp": expires});
    let token = encode(&header, &claims, &key).unwrap();
    (token, json!({ "keys": [jwk] }).to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_tokens_and_mutual_tls_both_are_required() {
    let authority = Authority::new("one");
    let (token, keys) = token_and_keys();
    let files = [
        ("tls-client-ca-file", authority.pem.as_str()),
        ("jwt-jwks-file", keys.as_str()),
    ];
    let server = TestServer::start(&authority, &files, &SETTINGS).await;
    let identity = authority.client(&["spiffe://example.org/portal"]);
    let with = authority.connector(Some(&identity));
    let without = authority.connector(None);
    assert_eq!(server.answer_to(&with, &token).await, Code::Ok);
    // The name in the certificate counts for nothing.
    assert_eq!(server.answer_to(&with, "").await, Code::Unauthenticated);
    let forged = token_and_keys().0;
    let answer = server.answer_to(&with, &forged).await;
    assert_eq!(answer, Code::Unauthenticated);
    // Not even a connection.
    let answer = server.answer_to(&without, &token).await;
    assert!(
        ![Code::Ok, Code::Unauthenticated].contains(&answer),
        "{answer:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_without_client_certificates_takes_tokens_alone() {
    let authority = Authority::new("one");
    let (token, keys) = token_and_keys();
    let files = [("jwt-jwks-file", keys.as_str())];
    let server = TestServer::start(&authority, &files, &SETTINGS).await;
    let client = authority.connector(None);
    assert_eq!(server.answer_to(&client, &token).await, Code::Ok);
    assert_eq!(server.answer_to(&client, "").await, Code::Unauthenticated);
    // Whoever trusts another authority does not send it a token.
    let answer = server
        .answer_to(&Authority::new("two").connector(None), &token)
        .await;
    assert!(
        ![Code::Ok, Code::Unauthenticated].contains(&answer),
        "{answer:?}"
    );
    // Nothing is served in plain text.
    let plain = Endpoint::try_from(format!("http://{}", server.address)).unwrap();
    let mut health = HealthClient::new(plain.connect_lazy());
    assert!(health.check(HealthCheckRequest::default()).await.is_err());
}
