//! What a password must be, and how it is kept.
//!
//! Rules: NIST SP 800-63B-4, section 3.1.1.2 (length, no composition rules, blocklist). Hash: Argon2id with
//! 19 MiB and two passes (OWASP Password Storage Cheat Sheet).

use argon2::{
    Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version,
    password_hash::phc::PasswordHash,
};
use secrecy::{ExposeSecret as _, SecretString};
use unicode_normalization::UnicodeNormalization as _;

/// Most characters of a password.
pub const MAX_LENGTH: usize = 256;
/// Characters that are compared with common passwords: the comparison takes quadratic time.
const ESTIMATED_LENGTH: usize = 72;
/// Guesses that a password must withstand. Below it stand the lists of common passwords, and
/// variations of what is known of the person.
const LEAST_GUESSES_LOG10: f64 = 8.0;

/// Why a password was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Too few characters.
    #[error("too short; use at least {min} characters, for example four or five unrelated words")]
    TooShort {
        /// Least number of characters.
        min: usize,
    },
    /// Too many characters.
    #[error("too long; at most {MAX_LENGTH} characters are accepted")]
    TooLong,
    /// Holds a name or the email of the person and little else.
    #[error(
        "too close to the person's own name, email or organization; choose something unrelated"
    )]
    Personal,
    /// On the list of common passwords, or a simple pattern.
    #[error(
        "too easy to guess: it is on the list of common passwords or a simple pattern; choose \
             four or five unrelated words"
    )]
    Common,
}

/// Rules of a deployment.
#[derive(Debug, Clone, Copy)]
pub struct PasswordPolicy {
    /// Least number of characters, 8 to 64.
    pub min_length: usize,
}

impl PasswordPolicy {
    /// Checks a password against the rules and against what is known of the person.
    ///
    /// # Errors
    /// Says what is wrong, in words for the person who chose it.
    pub fn check(self, password: &SecretString, personal: &[&str]) -> Result<(), PasswordError> {
        let password = normalized(password);
        let password = password.expose_secret();
        let length = password.chars().count();
        if length < self.min_length {
            return Err(PasswordError::TooShort {
                min: self.min_length,
            });
        }
        if length > MAX_LENGTH {
            return Err(PasswordError::TooLong);
        }
        if is_personal(password, personal) {
            return Err(PasswordError::Personal);
        }
        let start: String = password.chars().take(ESTIMATED_LENGTH).collect();
        if zxcvbn::zxcvbn(&start, personal).guesses_log10() < LEAST_GUESSES_LOG10 {
            return Err(PasswordError::Common);
        }
        Ok(())
    }
}

/// Whether little more than digits is left of the password without the words that anybody knows of the person.
fn is_personal(password: &str, personal: &[&str]) -> bool {
    let mut rest = letters(password);
    let before = rest.len();
    let mut words: Vec<String> = personal
        .iter()
        .flat_map(|text| text.split(|character: char| !character.is_alphanumeric()))
        .map(letters)
        .filter(|word| word.chars().count() >= 3)
        .collect();
    words.sort_by_key(|word| std::cmp::Reverse(word.len()));
    for word in &words {
        rest = rest.replace(word.as_str(), "");
    }
    rest.len() < before && rest.chars().count() < 6
}

fn letters(text: &str) -> String {
    any_ascii::any_ascii(text)
        .chars()
        .filter(|character| character.is_alphabetic())
        .flat_map(char::to_lowercase)
        .collect()
}

/// The same text for the same keys pressed, on whatever device (RFC 8265, section 4.2: `OpaqueString`).
fn normalized(password: &SecretString) -> SecretString {
    SecretString::from(password.expose_secret().nfc().collect::<String>())
}

fn argon2() -> Result<Argon2<'static>, argon2::password_hash::Error> {
    let params = Params::new(19 * 1024, 2, 1, None)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// The hash of a password, in PHC format with its own salt. Takes some 20 ms of processor time and 19 MiB.
///
/// # Errors
/// If there is no memory or randomness to be had.
pub fn hash(password: &SecretString) -> Result<String, argon2::password_hash::Error> {
    let password = normalized(password);
    let hash = argon2()?.hash_password(password.expose_secret().as_bytes())?;
    Ok(hash.to_string())
}

/// Whether `password` is the one that `hash` was made of. Takes as long as [`hash`].
///
/// # Errors
/// If the hash is malformed or there is no memory to be had.
pub fn verify(password: &SecretString, hash: &str) -> Result<bool, argon2::password_hash::Error> {
    let hash = PasswordHash::new(hash)?;
    let password = normalized(password);
    match argon2()?.verify_password(password.expose_secret().as_bytes(), &hash) {
        Ok(()) => Ok(true),
        Err(argon2::password_hash::Error::PasswordInvalid) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const PERSON: [&str; 3] = ["Zoë", "O'Sullivan", "zoe.osullivan@example.org"];

    #[rstest]
    #[case("correct horse battery staple", None)]
    #[case("ünter den Linden spazieren", None)]
    #[case("漢字の長いパスフレーズを使う人", None)]
    #[case("short", Some(PasswordError::TooShort { min: 15 }))]
    #[case("passwordpassword", Some(PasswordError::Common))]
    #[case("aaaaaaaaaaaaaaaaaaaa", Some(PasswordError::Common))]
    #[case("1234567890123456", Some(PasswordError::Common))]
    #[case("ZoeOSullivan2024!", Some(PasswordError::Personal))]
    #[case("zoe.osullivan@example.org", Some(PasswordError::Personal))]
    fn passwords_are_judged(#[case] password: &str, #[case] refused: Option<PasswordError>) {
        let policy = PasswordPolicy { min_length: 15 };
        let result = policy.check(&SecretString::from(password), &PERSON);
        assert_eq!(result.err(), refused);
    }

    #[test]
    fn at_least_64_characters_are_accepted() {
        let policy = PasswordPolicy { min_length: 15 };
        let long = "correct horse battery staple and then some more words ".repeat(4);
        assert_eq!(policy.check(&SecretString::from(long), &PERSON), Ok(()));
        let too_long = SecretString::from("x y z ".repeat(100_000));
        assert_eq!(
            policy.check(&too_long, &PERSON),
            Err(PasswordError::TooLong)
        );
    }

    #[test]
    fn composed_and_decomposed_letters_are_the_same_password() {
        let hash = hash(&SecretString::from("caf\u{e9} au lait s'il vous plaît")).unwrap();
        let decomposed = SecretString::from("cafe\u{301} au lait s'il vous plaît");
        assert!(verify(&decomposed, &hash).unwrap());
        assert!(!verify(&SecretString::from("another"), &hash).unwrap());
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
    }
}
