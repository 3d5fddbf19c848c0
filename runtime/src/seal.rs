//! Seals tokens to notify-svc, so that neither outbox, broker, nor a dump of either holds a usable link.
//!
//! A seal is bound to what decides where the link goes ([`TokenUse`]). Whoever can write to the broker or to the
//! tables of notify-svc, and changes any of it, makes an email that is not sent: notify-svc cannot open the token.
//!
//! HPKE (RFC 9180) in base mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305.

use std::{fmt, sync::Arc};

use aws_lc_rs::agreement;
use data_encoding::BASE64;
use rustls::crypto::{
    aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_CHACHA20_POLY1305 as SUITE,
    hpke::{EncapsulatedSecret, Hpke as _, HpkePrivateKey, HpkePublicKey},
};
use usher_proto::event::v1::InvitationRequested;
use zeroize::Zeroizing;

use crate::{email, hidden_debug};

/// Length of a key in bytes (RFC 9180, section 7.1).
const KEY_LENGTH: usize = 32;

/// Binds a seal to its use (`info` in RFC 9180, section 5).
const INFO: &[u8] = b"usher token v1";

/// Why a key or a seal was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The text is no key.
    #[error("not an X25519 key of 32 bytes in base64; make a pair with `notify-svc generate-key`")]
    MalformedKey,
    /// No key was made.
    #[error("the system gives no random numbers to make a key from")]
    CannotGenerate,
    /// Sealing failed: the public key is not a usable point.
    #[error("nothing can be sealed to this key; make a pair with `notify-svc generate-key`")]
    UnusableKey,
    /// None of the private keys opens the seal, or the token was sealed for another email.
    #[error("no private key opens the seal")]
    CannotOpen,
}

/// The half that account-svc seals with.
#[derive(Clone)]
pub struct PublicKey(HpkePublicKey);

/// The half that notify-svc opens with.
#[derive(Clone)]
pub struct PrivateKey {
    secret: Arc<HpkePrivateKey>,
    public: PublicKey,
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PublicKey({})", self.to_base64())
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PrivateKey(..)")
    }
}

/// A sealed token.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The encapsulated key, 32 bytes.
    pub encapsulated_key: Vec<u8>,
    /// The token with its authentication tag.
    pub ciphertext: Vec<u8>,
}

hidden_debug!(Sealed, TokenUse<'_> { invitation_id, send_number, kind });

impl PublicKey {
    /// Reads a key as `notify-svc generate-key` prints it.
    ///
    /// # Errors
    /// If `text` is no key, or nothing can be sealed to it.
    pub fn from_base64(text: &str) -> Result<Self, SealError> {
        let bytes = BASE64
            .decode(text.trim().as_bytes())
            .map_err(|_| SealError::MalformedKey)?;
        if bytes.len() != KEY_LENGTH {
            return Err(SealError::MalformedKey);
        }
        let key = HpkePublicKey(bytes);
        // A point of low order is found out at the start, and not by the first client who is invited.
        SUITE
            .setup_sealer(INFO, &key)
            .map_err(|_| SealError::UnusableKey)?;
        Ok(Self(key))
    }

    /// The key as text for a setting.
    #[must_use]
    pub fn to_base64(&self) -> String {
        BASE64.encode(&self.0.0)
    }
}

impl PrivateKey {
    /// Makes a new pair of keys.
    ///
    /// # Errors
    /// If the system gives no random numbers.
    pub fn generate() -> Result<(Self, PublicKey), SealError> {
        let (public, secret) = SUITE
            .generate_key_pair()
            .map_err(|_| SealError::CannotGenerate)?;
        let public = PublicKey(public);
        let private = Self {
            secret: Arc::new(secret),
            public: public.clone(),
        };
        Ok((private, public))
    }

    /// Reads a key as `notify-svc generate-key` prints it.
    ///
    /// # Errors
    /// If `text` is no key.
    pub fn from_base64(text: &str) -> Result<Self, SealError> {
        let secret = BASE64
            .decode(text.trim().as_bytes())
            .map(HpkePrivateKey::from)
            .map_err(|_| SealError::MalformedKey)?;
        let public =
            agreement::PrivateKey::from_private_key(&agreement::X25519, secret.secret_bytes())
                .map_err(|_| SealError::MalformedKey)?
                .compute_public_key()
                .map_err(|_| SealError::MalformedKey)?;
        Ok(Self {
            secret: Arc::new(secret),
            public: PublicKey(HpkePublicKey(public.as_ref().to_vec())),
        })
    }

    /// The key as text for a setting. Keep it secret.
    #[must_use]
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE64.encode(self.secret.secret_bytes()))
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }
}

/// The one email that a token is for.
#[derive(Clone, Copy)]
pub struct TokenUse<'a> {
    /// The organization that it is sent for.
    pub organization_id: &'a str,
    /// The invitation that the token belongs to.
    pub invitation_id: &'a str,
    /// Which email of the invitation.
    pub send_number: u32,
    /// What the link is for, for example `ACTIVATION`.
    pub kind: &'a str,
    /// The address that gets the link.
    pub recipient: &'a str,
    /// The portal that the link leads to.
    pub portal_url: &'a str,
}

impl<'a> TokenUse<'a> {
    /// The email that an event of this organization asks for.
    #[must_use]
    pub fn of(organization_id: &'a str, request: &'a InvitationRequested) -> Self {
        Self {
            organization_id,
            invitation_id: &request.invitation_id,
            send_number: request.send_number,
            kind: request
                .kind()
                .as_str_name()
                .trim_start_matches("INVITATION_KIND_"),
            recipient: &request.recipient,
            portal_url: request
                .organization
                .as_ref()
                .map_or("", |organization| &organization.portal_url),
        }
    }

    /// The parts, each after its length: no two uses are written alike.
    fn additional_data(self) -> Vec<u8> {
        let recipient = email::canonical(self.recipient);
        let send_number = self.send_number.to_string();
        let mut data = Vec::new();
        for part in [
            self.organization_id,
            self.invitation_id,
            &send_number,
            self.kind,
            &recipient,
            self.portal_url.trim_end_matches('/'),
        ] {
            data.extend_from_slice(&(part.len() as u64).to_be_bytes());
            data.extend_from_slice(part.as_bytes());
        }
        data
    }
}

/// Seals `token` to `key`. The use must be repeated to open it.
///
/// # Errors
/// If the key is not a usable point of the curve.
pub fn seal(key: &PublicKey, token: &str, token_use: TokenUse<'_>) -> Result<Sealed, SealError> {
    let additional_data = token_use.additional_data();
    let (encapsulated_key, ciphertext) = SUITE
        .seal(INFO, &additional_data, token.as_bytes(), &key.0)
        .map_err(|_| SealError::UnusableKey)?;
    Ok(Sealed {
        encapsulated_key: encapsulated_key.0,
        ciphertext,
    })
}

/// Opens a seal with whichever of `keys` fits: while keys are rotated, seals to the old key are still
/// under way.
///
/// # Errors
/// If none fits, or the token was sealed for another use.
pub fn open(
    keys: &[PrivateKey],
    sealed: &Sealed,
    token_use: TokenUse<'_>,
) -> Result<Zeroizing<String>, SealError> {
    let encapsulated_key = EncapsulatedSecret(sealed.encapsulated_key.clone());
    let additional_data = token_use.additional_data();
    keys.iter()
        .find_map(|key| {
            SUITE
                .open(
                    &encapsulated_key,
                    INFO,
                    &additional_data,
                    &sealed.ciphertext,
                    &key.secret,
                )
                .ok()
        })
        .and_then(|token| String::from_utf8(token).ok())
        .map(Zeroizing::new)
        .ok_or(SealError::CannotOpen)
}

#[cfg(test)]
mod tests {
    use super::*;

    const USE: TokenUse<'_> = TokenUse {
        organization_id: "organization",
        invitation_id: "invitation",
        send_number: 1,
        kind: "ACTIVATION",
        recipient: "ann@example.org",
        portal_url: "https://portal.example.org",
    };

    #[test]
    fn only_the_private_key_opens_a_seal() {
        let (private, public) = PrivateKey::generate().unwrap();
        let (other, _) = PrivateKey::generate().unwrap();
        let sealed = seal(&public, "token", USE).unwrap();
        let opened = open(&[other.clone(), private], &sealed, USE).unwrap();
        assert_eq!(opened.as_str(), "token");
        assert_eq!(open(&[other], &sealed, USE), Err(SealError::CannotOpen));
    }

    #[test]
    fn a_seal_opens_for_its_own_email_alone() {
        let (private, public) = PrivateKey::generate().unwrap();
        let keys = [private];
        let sealed = seal(&public, "token", USE).unwrap();
        let same = TokenUse {
            recipient: "Ann@EXAMPLE.org",
            portal_url: "https://portal.example.org/",
            ..USE
        };
        assert!(open(&keys, &sealed, same).is_ok());
        for other in [
            TokenUse {
                organization_id: "another",
                ..USE
            },
            TokenUse {
                invitation_id: "another",
                ..USE
            },
            TokenUse {
                send_number: 2,
                ..USE
            },
            TokenUse {
                kind: "SHARE_REQUEST",
                ..USE
            },
            TokenUse {
                recipient: "mallory@example.org",
                ..USE
            },
            TokenUse {
                portal_url: "https://portal.example.org.mallory.example",
                ..USE
            },
            // The same characters, with another border between two parts.
            TokenUse {
                organization_id: "organizationi",
                invitation_id: "nvitation",
                ..USE
            },
        ] {
            let opened = open(&keys, &sealed, other);
            assert_eq!(opened, Err(SealError::CannotOpen), "{other:?}");
        }
    }

    #[test]
    fn keys_survive_their_text() {
        let (private, public) = PrivateKey::generate().unwrap();
        let again = PrivateKey::from_base64(&private.to_base64()).unwrap();
        assert_eq!(again.public_key().to_base64(), public.to_base64());
        assert_eq!(
            PublicKey::from_base64("not a key").unwrap_err(),
            SealError::MalformedKey
        );
    }

    #[test]
    fn points_of_low_order_are_no_keys() {
        let one = {
            let mut bytes = [0; KEY_LENGTH];
            bytes[0] = 1;
            bytes
        };
        for point in [[0; KEY_LENGTH], one] {
            let key = PublicKey::from_base64(&BASE64.encode(&point));
            assert_eq!(key.unwrap_err(), SealError::UnusableKey);
        }
    }
}
