//! Who issues tokens, and who forges them.

use std::path::PathBuf;

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    signature::Ed25519KeyPair,
};
use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp, jwk::Jwk};
use serde_json::{Value, json};
use tempfile::TempDir;

pub const NAME: &str = "https://issuer.example";
pub const AUDIENCE: &str = "usher";

/// An issuer with a key in use, and one that is rotated out later.
pub struct Issuer {
    directory: TempDir,
    key: Signer,
    old_key: Signer,
}

struct Signer {
    id: &'static str,
    key: EncodingKey,
}

impl Issuer {
    pub fn start() -> Self {
        let issuer = Self {
            directory: TempDir::new().expect("directory"),
            key: Signer::new("current"),
            old_key: Signer::new("old"),
        };
        issuer.publish(&[&issuer.key, &issuer.old_key]);
        issuer
    }

    /// The file with the public keys.
    pub fn keys(&self) -> PathBuf {
        self.directory.path().join("jwks.json")
    }

    /// Takes the old key out of the file.
    pub fn rotate(&self) {
        self.publish(&[&self.key]);
    }

    fn publish(&self, signers: &[&Signer]) {
        let keys: Vec<Value> = signers.iter().map(|signer| signer.jwk()).collect();
        std::fs::write(self.keys(), json!({ "keys": keys }).to_string()).expect("write");
    }

    /// A token for callers of `organization_id`, or of the platform if it is empty.
    pub fn token(&self, scope: &str, organization_id: &str) -> String {
        self.key.sign(&claims(scope, organization_id))
    }

    /// The same, signed with the old key.
    pub fn old_token(&self, scope: &str, organization_id: &str) -> String {
        self.old_key.sign(&claims(scope, organization_id))
    }

    /// The same, but for one claim.
    pub fn token_with(
        &self,
        name: &str,
        value: Value,
        scope: &str,
        organization_id: &str,
    ) -> String {
        let mut claims = claims(scope, organization_id);
        claims[name] = value;
        self.key.sign(&claims)
    }

    /// A token that says that nobody signed it.
    pub fn unsigned(scope: &str, organization_id: &str) -> String {
        let header = BASE64URL_NOPAD.encode(br#"{"alg":"none","kid":"current"}"#);
        let claims = claims(scope, organization_id).to_string();
        format!("{header}.{}.", BASE64URL_NOPAD.encode(claims.as_bytes()))
    }

    /// A token that is signed with the public key as a secret.
    pub fn confused(&self, scope: &str, organization_id: &str) -> String {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some("current".to_owned());
        let public = self.key.jwk()["x"].as_str().expect("key").to_owned();
        let secret = BASE64URL_NOPAD.decode(public.as_bytes()).expect("base64");
        let claims = claims(scope, organization_id);
        encode(&header, &claims, &EncodingKey::from_secret(&secret)).expect("token")
    }
}

impl Signer {
    fn new(id: &'static str) -> Self {
        let pair = Ed25519KeyPair::generate().expect("key");
        let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).expect("key");
        Self {
            id,
            key: EncodingKey::from_ed_der(der.as_ref()),
        }
    }

    fn jwk(&self) -> Value {
        let mut key = Jwk::from_encoding_key(&self.key, Algorithm::EdDSA).expect("key");
        key.common.key_id = Some(self.id.to_owned());
        serde_json::to_value(key).expect("key")
    }

    fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(self.id.to_owned());
        encode(&header, claims, &self.key).expect("token")
    }
}

fn claims(scope: &str, organization_id: &str) -> Value {
    let mut claims = json!({
        "iss": NAME,
        "aud": AUDIENCE,
        "sub": "walker",
        "exp": get_current_timestamp() + 3600,
        "scope": scope,
    });
    if !organization_id.is_empty() {
        claims["organization_id"] = json!(organization_id);
    }
    claims
}
