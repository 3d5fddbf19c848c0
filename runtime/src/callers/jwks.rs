//! The public keys of whoever issues tokens: a JSON Web Key Set (RFC 7517), from a file or a URL.

#[cfg(test)]
use std::time::Duration;
use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};

use anyhow::{Context as _, bail, ensure};
use jsonwebtoken::{
    Algorithm, DecodingKey, Validation,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse},
};
use serde::Deserialize;

use super::remote_keys::RemoteKeys;
use crate::{config::CallerArgs, watched_files::WatchedFiles};

/// Largest set of keys, in bytes.
pub(super) const MAX_BYTES: usize = 64 * 1024;

/// Difference between the clocks of issuer and service that is tolerated, in seconds.
const LEEWAY_SECONDS: u64 = 30;

/// A key, with what a token that it signed has to say. One for each key: a validation that allows several
/// families of algorithms refuses everything.
pub(super) struct Key {
    pub(super) key: DecodingKey,
    pub(super) validation: Validation,
}

type KeysById = HashMap<String, Arc<Key>>;

/// The keys of the issuer, as they are at the moment.
pub(super) struct Keys {
    expected: Expected,
    source: Source,
    current: RwLock<Arc<KeysById>>,
}

/// What tokens must say.
#[derive(Debug, Clone)]
struct Expected {
    issuer: String,
    audience: String,
}

enum Source {
    File(WatchedFiles),
    Url(Box<RemoteKeys>),
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Keys")
            .field("expected", &self.expected)
            .finish_non_exhaustive()
    }
}

impl Keys {
    /// The keys that the settings name; `None` if they name none. Those of a URL are fetched later.
    ///
    /// # Errors
    /// If settings are missing, or a file cannot be used; the message names the setting.
    pub(super) fn from_args(args: &CallerArgs) -> anyhow::Result<Option<Self>> {
        let (issuer, audience) = match (&args.jwt_jwks_file, &args.jwt_jwks_url) {
            (None, None) => {
                ensure!(
                    args.jwt_issuer.is_none() && args.jwt_audience.is_none(),
                    "JWT_ISSUER and JWT_AUDIENCE need JWT_JWKS_FILE or JWT_JWKS_URL"
                );
                ensure!(args.jwt_ca_file.is_none(), "JWT_CA_FILE needs JWT_JWKS_URL");
                return Ok(None);
            }
            (Some(_), Some(_)) => bail!("set one of JWT_JWKS_FILE and JWT_JWKS_URL, not both"),
            _ => match (&args.jwt_issuer, &args.jwt_audience) {
                (Some(issuer), Some(audience)) if !issuer.is_empty() && !audience.is_empty() => {
                    (issuer.clone(), audience.clone())
                }
                _ => bail!("JWT_JWKS_FILE and JWT_JWKS_URL need JWT_ISSUER and JWT_AUDIENCE"),
            },
        };
        let expected = Expected { issuer, audience };
        if let Some(file) = &args.jwt_jwks_file {
            ensure!(args.jwt_ca_file.is_none(), "JWT_CA_FILE needs JWT_JWKS_URL");
            return Self::from_file(expected, file).map(Some);
        }
        let Some(url) = &args.jwt_jwks_url else {
            return Ok(None);
        };
        let remote = RemoteKeys::new(url.clone(), args.jwt_ca_file.as_deref())?;
        Ok(Some(Self {
            expected,
            source: Source::Url(Box::new(remote)),
            current: RwLock::default(),
        }))
    }

    fn from_file(expected: Expected, path: &Path) -> anyhow::Result<Self> {
        let (file, contents) = WatchedFiles::read(vec![("JWT_JWKS_FILE", path.to_owned())])?;
        let name = file.name(0);
        let keys = expected.parse(&contents.concat()).with_context(|| {
            format!(r#"{name} is no JSON Web Key Set; write the issuer's there: {{"keys": […]}}"#)
        })?;
        ensure!(
            !keys.is_empty(),
            "{name} holds no key for RS256, ES256 or EdDSA with a `kid`; write the issuer's public keys there"
        );
        Ok(Self {
            expected,
            source: Source::File(file),
            current: RwLock::new(Arc::new(keys)),
        })
    }

    /// Takes over changed keys; never ends.
    pub(super) async fn follow_changes(&self) {
        let take_over = |content: &[u8]| {
            let keys = self.expected.parse(content)?;
            if keys.is_empty() {
                tracing::warn!("the issuer has no usable key left: every token is refused");
            }
            *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
            Ok(())
        };
        match &self.source {
            Source::File(file) => file.follow(|contents| take_over(&contents.concat())).await,
            Source::Url(remote) => remote.follow(take_over).await,
        }
    }

    #[cfg(test)]
    pub(super) fn set_intervals(&mut self, refresh: Duration, minimum: Duration) {
        if let Source::Url(remote) = &mut self.source {
            remote.refresh_interval = refresh;
            remote.minimum_interval = minimum;
        }
    }

    /// The key with this id. Keys of a URL are fetched again if it is unknown, and not right after the last
    /// time.
    pub(super) async fn find(&self, key_id: &str) -> Option<Arc<Key>> {
        if let Some(key) = self.get(key_id) {
            return Some(key);
        }
        if let Source::Url(remote) = &self.source {
            remote.fetched_again().await;
        }
        self.get(key_id)
    }

    fn get(&self, key_id: &str) -> Option<Arc<Key>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.get(key_id).map(Arc::clone)
    }
}

impl Expected {
    /// The usable keys of a set. Others are passed over, as RFC 7517 (section 5) asks for: an issuer may have
    /// keys of kinds that we do not know.
    fn parse(&self, content: &[u8]) -> anyhow::Result<KeysById> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<serde_json::Value>,
        }
        ensure!(content.len() <= MAX_BYTES, "larger than {MAX_BYTES} bytes");
        let set: Set = serde_json::from_slice(content)?;
        let keys = set.keys.into_iter().filter_map(|key| {
            let key: Jwk = serde_json::from_value(key).ok()?;
            Some((key.common.key_id.clone()?, Arc::new(self.key(&key)?)))
        });
        Ok(keys.collect())
    }

    fn key(&self, key: &Jwk) -> Option<Key> {
        let key_use = key.common.public_key_use.as_ref();
        if key_use.is_some_and(|key_use| *key_use != PublicKeyUse::Signature) {
            return None;
        }
        // A symmetric key would let everybody who can check tokens also make them.
        let algorithm = match &key.algorithm {
            AlgorithmParameters::RSA(_) => Algorithm::RS256,
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
                Algorithm::ES256
            }
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                Algorithm::EdDSA
            }
            _ => return None,
        };
        if let Some(declared) = key.common.key_algorithm
            && Algorithm::try_from(declared).ok() != Some(algorithm)
        {
            return None;
        }
        let mut validation = Validation::new(algorithm);
        validation.set_audience(&[&self.audience]);
        validation.set_issuer(&[&self.issuer]);
        // A claim that is not required passes when it is missing.
        validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY_SECONDS;
        Some(Key {
            key: DecodingKey::from_jwk(key).ok()?,
            validation,
        })
    }
}
