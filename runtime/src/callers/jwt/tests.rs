//! Tokens that are accepted and refused, and keys that change.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rand::SystemRandom,
    rsa,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair},
};
use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp, jwk::Jwk};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use super::*;
use crate::config::CallerArgs;

mod remote;

const ISSUER: &str = "https://issuer.example";
const AUDIENCE: &str = "usher";
const ORGANIZATION: &str = "0191aaaa-0000-7000-8000-000000000001";

/// Longer than files take to be read again.
const PATIENCE: Duration = Duration::from_secs(20);

/// A key of the issuer.
struct Signer {
    id: &'static str,
    algorithm: Algorithm,
    key: EncodingKey,
}

impl Signer {
    fn rsa(id: &'static str) -> Self {
        let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
        let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
        // The library wants what PKCS #8 wraps, behind a header of 26 bytes.
        let key = EncodingKey::from_rsa_der(&der.as_ref()[26..]);
        Self {
            id,
            algorithm: Algorithm::RS256,
            key,
        }
    }

    fn ec(id: &'static str) -> Self {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        Self {
            id,
            algorithm: Algorithm::ES256,
            key: EncodingKey::from_ec_der(pair.as_ref()),
        }
    }

    fn ed(id: &'static str) -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
        Self {
            id,
            algorithm: Algorithm::EdDSA,
            key: EncodingKey::from_ed_der(der.as_ref()),
        }
    }

    fn jwk(&self) -> Value {
        let mut key = Jwk::from_encoding_key(&self.key, self.algorithm).unwrap();
        key.common.key_id = Some(self.id.to_owned());
        serde_json::to_value(key).unwrap()
    }

    fn header(&self) -> Header {
        let mut header = Header::new(self.algorithm);
        header.kid = Some(self.id.to_owned());
        header
    }

    fn sign(&self, claims: &Value) -> String {
        self.sign_with(&self.header(), claims)
    }

    fn sign_with(&self, header: &Header, claims: &Value) -> String {
        encode(header, claims, &self.key).unwrap()
    }
}

fn set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

/// What a good token says.
fn claims() -> Value {
    json!({
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "portal",
        "exp": get_current_timestamp() + 60,
        "scope": "accounts.read portal",
        "organization_id": ORGANIZATION,
    })
}

/// A good token's claims but for one; null takes it away.
fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    if value.is_null() {
        claims.as_object_mut().unwrap().remove(name);
    } else {
        claims[name] = value;
    }
    claims
}

fn bearer_headers(token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
    headers
}

/// Keys in a file.
struct Issuer {
    directory: TempDir,
    keys: Arc<Keys>,
}

impl Issuer {
    fn new(content: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("jwks.json");
        fs::write(&file, content).unwrap();
        let args = CallerArgs {
            jwt_jwks_file: Some(file),
            ..expected()
        };
        Self {
            directory,
            keys: Arc::new(Keys::from_args(&args).unwrap().unwrap()),
        }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("jwks.json")
    }

    async fn refusal(&self, token: &str) -> &'static str {
        let Refusal(cause) = caller(&self.keys, &bearer_headers(token))
            .await
            .expect_err("the token is wrong");
        cause
    }
}

fn expected() -> CallerArgs {
    CallerArgs {
        jwt_issuer: Some(ISSUER.to_owned()),
        jwt_audience: Some(AUDIENCE.to_owned()),
        ..CallerArgs::default()
    }
}

/// Waits until a token is accepted, or is not any more.
async fn until_accepted(keys: &Keys, token: &str, accepted: bool) {
    let deadline = Instant::now() + PATIENCE;
    while caller(keys, &bearer_headers(token)).await.is_ok() != accepted {
        assert!(Instant::now() < deadline, "not in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn each_algorithm_is_accepted_with_its_own_key() {
    let signers = [Signer::rsa("r"), Signer::ec("e"), Signer::ed("d")];
    let issuer = Issuer::new(&set(&signers.each_ref().map(Signer::jwk)));
    for signer in &signers {
        let headers = bearer_headers(&signer.sign(&claims()));
        let found = caller(&issuer.keys, &headers).await.unwrap();
        assert_eq!(found.subject, "portal");
        assert_eq!(found.organization_id.unwrap().to_string(), ORGANIZATION);
        let scopes = ["accounts.read", "portal"].map(str::to_owned);
        assert_eq!(found.grants, Grants::Scopes(scopes.into()));
    }
    // Signed with one key, and said to be of another of another kind.
    let mut header = signers[0].header();
    header.kid = Some("e".to_owned());
    let mixed = signers[0].sign_with(&header, &claims());
    assert_eq!(issuer.refusal(&mixed).await, "algorithm");
}

#[tokio::test]
async fn claims_are_checked() {
    let signer = Signer::ed("d");
    let issuer = Issuer::new(&set(&[signer.jwk()]));
    let now = get_current_timestamp();
    for (claims, cause) in [
        (with("exp", json!(now - 31)), "expired"),
        (with("exp", json!(null)), "claims"),
        (with("exp", json!("9999999999")), "claims"),
        (with("exp", json!(-1)), "claims"),
        (with("nbf", json!(now + 60)), "not_yet_valid"),
        (with("aud", json!("other")), "audience"),
        (with("aud", json!(5)), "claims"),
        (with("aud", json!(null)), "claims"),
        (with("iss", json!("https://other.example")), "issuer"),
        (with("iss", json!(null)), "claims"),
        (with("iss", json!([ISSUER])), "malformed"),
        (
            with("iss", json!(["https://other.example", ISSUER])),
            "malformed",
        ),
        (with("sub", json!(null)), "malformed"),
        (with("sub", json!(5)), "malformed"),
        (with("sub", json!("")), "subject"),
        (with("sub", json!("a b")), "subject"),
        (with("sub", json!("x".repeat(129))), "subject"),
        (with("sub", json!("usher")), "subject"),
        (with("sub", json!("person:1")), "subject"),
        (with("scope", json!(["portal"])), "malformed"),
        (with("organization_id", json!("x")), "organization"),
        (with("organization_id", json!(Uuid::nil())), "organization"),
    ] {
        assert_eq!(
            issuer.refusal(&signer.sign(&claims)).await,
            cause,
            "{claims}"
        );
    }
    for claims in [
        with("exp", json!(now - 20)),
        with("nbf", json!(now + 20)),
        with("aud", json!(["other", AUDIENCE])),
        with("scope", json!(null)),
        with("organization_id", json!(null)),
    ] {
        let headers = bearer_headers(&signer.sign(&claims));
        assert!(caller(&issuer.keys, &headers).await.is_ok(), "{claims}");
    }
}

#[tokio::test]
async fn forged_tokens_are_refused() {
    let signer = Signer::ed("d");
    let rsa = Signer::rsa("r");
    let issuer = Issuer::new(&set(&[signer.jwk(), rsa.jwk()]));
    let good = signer.sign(&claims());
    let parts: Vec<&str> = good.split('.').collect();
    let with_header = |header: &str| {
        let header = BASE64URL_NOPAD.encode(header.as_bytes());
        format!("{header}.{}.{}", parts[1], parts[2])
    };
    let none = with_header(r#"{"alg":"none","kid":"d"}"#);
    let without_signature = format!("{}.", none.rsplit_once('.').unwrap().0);

    // The public key as the secret of a symmetric algorithm.
    let mut symmetric = Header::new(Algorithm::HS256);
    symmetric.kid = Some("r".to_owned());
    let public = rsa.jwk()["n"].as_str().unwrap().to_owned();
    let confused = encode(
        &symmetric,
        &claims(),
        &EncodingKey::from_secret(public.as_bytes()),
    )
    .unwrap();

    let stranger = Signer::ed("d").sign(&claims());
    let mut header = signer.header();
    header.kid = None;
    let without_key_id = signer.sign_with(&header, &claims());
    header.kid = Some("d".to_owned());
    header.typ = Some("dpop+jwt".to_owned());
    let other_type = signer.sign_with(&header, &claims());
    let altered = format!("{}.{}x.{}", parts[0], parts[1], parts[2]);
    let long = signer.sign(&with("x", json!("x".repeat(MAX_TOKEN_BYTES))));

    for (token, cause) in [
        (&*none, "malformed"),
        (&without_signature, "malformed"),
        (&confused, "algorithm"),
        (&stranger, "signature"),
        (&without_key_id, "unknown_key"),
        (&other_type, "type"),
        (&altered, "signature"),
        (&long, "too_long"),
        (
            &with_header(r#"{"alg":"EdDSA","kid":"d","crit":["b64"],"b64":false}"#),
            "critical_extension",
        ),
        ("", "malformed"),
        ("..", "malformed"),
        ("a.b.c", "malformed"),
    ] {
        assert_eq!(issuer.refusal(token).await, cause, "{token}");
    }
    header.typ = Some("application/at+JWT".to_owned());
    let access_token = bearer_headers(&signer.sign_with(&header, &claims()));
    assert!(caller(&issuer.keys, &access_token).await.is_ok());
}

#[tokio::test]
async fn one_header_carries_the_token() {
    let signer = Signer::ed("d");
    let issuer = Issuer::new(&set(&[signer.jwk()]));
    let token = signer.sign(&claims());
    let mut headers = HeaderMap::new();
    assert_eq!(
        caller(&issuer.keys, &headers).await,
        Err(Refusal("no_token"))
    );
    headers.insert(AUTHORIZATION, format!("Basic {token}").parse().unwrap());
    assert_eq!(
        caller(&issuer.keys, &headers).await,
        Err(Refusal("no_token"))
    );
    headers.insert(AUTHORIZATION, format!("bearer {token}").parse().unwrap());
    assert!(caller(&issuer.keys, &headers).await.is_ok());
    headers.append(AUTHORIZATION, format!("bearer {token}").parse().unwrap());
    assert_eq!(
        caller(&issuer.keys, &headers).await,
        Err(Refusal("malformed"))
    );
}

#[tokio::test]
async fn keys_that_are_not_for_us_are_passed_over() {
    let signer = Signer::ed("d");
    let mut encryption = Signer::ed("enc").jwk();
    encryption["use"] = json!("enc");
    let mut other_algorithm = Signer::rsa("ps").jwk();
    other_algorithm["alg"] = json!("PS256");
    let keys = [
        encryption,
        other_algorithm,
        json!({"kty": "OKP", "crv": "Ed448", "x": "AAAA", "kid": "ed448"}),
        json!({"kty": "EC", "crv": "secp256k1", "x": "AAAA", "y": "AAAA", "kid": "k1"}),
        json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA", "kid": "pq"}),
        json!({"kty": "oct", "k": "AAAA", "kid": "sym"}),
        json!({"kty": "RSA", "n": "AAAA", "kid": "broken"}),
        json!("nonsense"),
    ];
    let issuer = Issuer::new(&set(&[&[signer.jwk()], &keys[..]].concat()));
    let good = bearer_headers(&signer.sign(&claims()));
    assert!(caller(&issuer.keys, &good).await.is_ok());
    for id in ["enc", "ps", "ed448", "k1", "pq", "sym", "broken"] {
        let mut header = signer.header();
        header.kid = Some(id.to_owned());
        let token = signer.sign_with(&header, &claims());
        assert_eq!(issuer.refusal(&token).await, "unknown_key", "{id}");
    }
}

#[tokio::test]
async fn a_file_without_usable_keys_stops_the_start() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("jwks.json");
    for content in [
        "",
        "{}",
        r#"{"keys": []}"#,
        r#"{"keys": [{"kty": "oct", "k": "AA", "kid": "s"}]}"#,
    ] {
        fs::write(&file, content).unwrap();
        let args = CallerArgs {
            jwt_jwks_file: Some(file.clone()),
            ..expected()
        };
        let error = format!("{:#}", Keys::from_args(&args).unwrap_err());
        assert!(error.contains("JWT_JWKS_FILE"), "{content}: {error}");
    }
}

#[tokio::test]
async fn a_changed_file_is_taken_over_and_a_broken_one_is_not() {
    let (old, new) = (Signer::ed("old"), Signer::ed("new"));
    let issuer = Issuer::new(&set(&[old.jwk()]));
    let keys = Arc::clone(&issuer.keys);
    let follower = tokio::spawn(async move { keys.follow_changes().await });
    let (old, new) = (old.sign(&claims()), (new.sign(&claims()), new.jwk()));
    let (new, new_key) = new;
    assert_eq!(issuer.refusal(&new).await, "unknown_key");

    // Half-written: the old keys stay.
    fs::write(issuer.file(), r#"{"keys": ["#).unwrap();
    until_accepted(&issuer.keys, &old, true).await;

    fs::write(issuer.file(), set(&[new_key])).unwrap();
    until_accepted(&issuer.keys, &new, true).await;
    assert_eq!(issuer.refusal(&old).await, "unknown_key");
    follower.abort();
}
