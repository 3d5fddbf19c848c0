//! Tokens in links.

use aws_lc_rs::{
    digest,
    rand::{SecureRandom, SystemRandom},
};
use data_encoding::BASE64URL_NOPAD;
use secrecy::{ExposeSecret as _, SecretString};
use usher_runtime::hidden_debug;

/// Random bytes in a token: 256 bits.
const LENGTH: usize = 32;

/// SHA-256 of a token: all that the database keeps. Without a salt, because 256 random bits cannot be
/// guessed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenHash(pub [u8; 32]);

hidden_debug!(TokenHash);

/// A new token and its hash.
///
/// # Errors
/// If the operating system has no randomness to give.
pub fn generate() -> Result<(SecretString, TokenHash), aws_lc_rs::error::Unspecified> {
    let mut bytes = [0; LENGTH];
    SystemRandom::new().fill(&mut bytes)?;
    let token = SecretString::from(BASE64URL_NOPAD.encode(&bytes));
    let hash = hash(token.expose_secret());
    Ok((token, hash))
}

/// The hash that a token from a link is looked up by; `None` for what cannot be a token.
#[must_use]
pub fn parse(token: &str) -> Option<TokenHash> {
    let token = token.trim();
    let bytes = BASE64URL_NOPAD.decode(token.as_bytes()).ok()?;
    (bytes.len() == LENGTH).then(|| hash(token))
}

fn hash(token: &str) -> TokenHash {
    let digest = digest::digest(&digest::SHA256, token.as_bytes());
    let mut hash = [0; 32];
    hash.copy_from_slice(digest.as_ref());
    TokenHash(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_by_its_hash() {
        let (token, hash) = generate().unwrap();
        assert_eq!(token.expose_secret().len(), 43);
        assert_eq!(parse(token.expose_secret()), Some(hash));
        assert_ne!(generate().unwrap().1, hash);
    }

    #[test]
    fn what_cannot_be_a_token_is_not_looked_up() {
        for text in ["", "short", "%%%", &"A".repeat(44), &"A".repeat(100_000)] {
            assert_eq!(parse(text), None);
        }
    }
}
