//! What a password must be, and how it is hashed.
//!
//! Rules: NIST SP 800-63B-4, section 3.1.1.2 (length, no composition rules, blocklist). Hash: Argon2id with
//! 19 MiB and two passes (OWASP Password Storage Cheat Sheet).

use std::collections::HashSet;

use argon2::{
    Algorithm, Argon2, Block, Params, Version,
    password_hash::{
        Error as HashError,
        phc::{Output, ParamsString, PasswordHash, Salt},
    },
};
use secrecy::{ExposeSecret as _, SecretString};
use unicode_normalization::UnicodeNormalization as _;

use super::personal_words;

/// Most characters of a password.
pub const MAX_LENGTH: usize = 256;
/// Most bytes of a password, before anything is done with it.
const MAX_BYTES: usize = 1024;
/// Characters that are compared with common passwords: the comparison takes quadratic time.
const ESTIMATED_LENGTH: usize = 32;
/// Different characters that stand for letters (`4` for `a`, `$` for `s`) up to which a text is compared with common
/// passwords: each multiplies the work, up to a second for crafted ones, and no common password has as many.
const MOST_SUBSTITUTES: usize = 12;
/// What the estimate takes for letters.
const SUBSTITUTES: &str = "4@8({[<369&#!1/|0$5+7%2";
/// Guesses that a password must withstand, as it is and without the words that anybody knows of the person.
/// Below it stand the lists of common passwords with their variations.
const LEAST_GUESSES_LOG10: f64 = 8.0;
/// Different characters that a password must have without the words that anybody knows of the person.
const LEAST_DIFFERENT: usize = 8;

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
    #[error("too long; at most {MAX_LENGTH} characters, in {MAX_BYTES} bytes, are accepted")]
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
        if is_oversized(password) {
            return Err(PasswordError::TooLong);
        }
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
        if personal_words::removed(password, personal)
            .is_some_and(|rest| is_monotonous(&rest) || is_weak(&rest))
        {
            return Err(PasswordError::Personal);
        }
        if is_weak(password) {
            return Err(PasswordError::Common);
        }
        Ok(())
    }
}

/// Whether a text is a common password or a variation of some: repeated, backwards, with digits for letters.
fn is_weak(text: &str) -> bool {
    let start: String = text.chars().take(ESTIMATED_LENGTH).collect();
    let substitutes: HashSet<char> = start
        .chars()
        .filter(|character| SUBSTITUTES.contains(*character))
        .collect();
    if substitutes.len() > MOST_SUBSTITUTES {
        return false;
    }
    zxcvbn::zxcvbn(&start, &[]).guesses_log10() < LEAST_GUESSES_LOG10
}

/// Whether a text has few different characters: years and exclamation marks around a name add little to it.
fn is_monotonous(text: &str) -> bool {
    text.chars().collect::<HashSet<_>>().len() < LEAST_DIFFERENT
}

fn is_oversized(password: &SecretString) -> bool {
    password.expose_secret().len() > MAX_BYTES
}

/// The same text for the same keys pressed, on whatever device (RFC 8265, section 4.2: `OpaqueString`).
fn normalized(password: &SecretString) -> SecretString {
    SecretString::from(password.expose_secret().nfc().collect::<String>())
}

/// Hashes passwords, one at a time. Keeps its 19 MiB of memory: allocated anew on changing threads, they would
/// stay with the allocator many times over.
#[derive(Default)]
pub struct Hasher {
    memory: Vec<Block>,
}

impl Hasher {
    /// The hash of a password, in PHC format with its own salt. Takes some 20 ms of processor time.
    ///
    /// # Errors
    /// If there is no randomness to be had.
    pub fn hash(&mut self, password: &SecretString) -> Result<String, HashError> {
        let params = Params::new(19 * 1024, 2, 1, None)?;
        let salt = Salt::new(&argon2::password_hash::try_generate_salt()?)?;
        let (algorithm, version) = (Algorithm::Argon2id, Version::V0x13);
        let output = self.compute(algorithm, version, &params, password, &salt)?;
        let hash = PasswordHash {
            algorithm: algorithm.ident(),
            version: Some(version.into()),
            params: ParamsString::try_from(&params)?,
            salt: Some(salt),
            hash: Some(output),
        };
        Ok(hash.to_string())
    }

    /// Whether `password` is the one that `hash` was made of. Takes as long as [`Self::hash`], but for one of
    /// more bytes than are accepted.
    ///
    /// # Errors
    /// If the hash is malformed.
    pub fn verify(&mut self, password: &SecretString, hash: &str) -> Result<bool, HashError> {
        let hash = PasswordHash::new(hash)?;
        let (Some(salt), Some(expected)) = (&hash.salt, &hash.hash) else {
            return Err(HashError::EncodingInvalid);
        };
        if is_oversized(password) {
            // No password of this size was ever accepted.
            return Ok(false);
        }
        let algorithm = Algorithm::try_from(hash.algorithm.as_str())?;
        let version = hash.version.map(Version::try_from).transpose()?;
        let params = Params::try_from(&hash)?;
        let version = version.unwrap_or_default();
        // Compared in constant time.
        Ok(self.compute(algorithm, version, &params, password, salt)? == *expected)
    }

    fn compute(
        &mut self,
        algorithm: Algorithm,
        version: Version,
        params: &Params,
        password: &SecretString,
        salt: &[u8],
    ) -> Result<Output, HashError> {
        let password = normalized(password);
        let mut output = [0; Output::MAX_LENGTH];
        let output = output
            .get_mut(..params.output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN))
            .ok_or(HashError::OutputSize)?;
        self.memory.resize(params.block_count(), Block::new());
        Argon2::new(algorithm, version, params.clone()).hash_password_into_with_memory(
            password.expose_secret().as_bytes(),
            salt,
            output,
            &mut self.memory,
        )?;
        Ok(Output::new(output)?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    const PERSON: [&str; 4] = [
        "Zoë",
        "O'Sullivan",
        "zoe.osullivan@example.org",
        "Harbour Clinic",
    ];

    fn check(password: &str, personal: &[&str]) -> Result<(), PasswordError> {
        PasswordPolicy { min_length: 15 }.check(&SecretString::from(password), personal)
    }

    #[rstest]
    #[case("correct horse battery staple")]
    #[case("ünter den Linden spazieren")]
    #[case("漢字の長いパスフレーズを使う人")]
    #[case("zoe likes walking her green tortoise")]
    #[case("kettle harbour umbrella seventeen")]
    #[case("q8#vK2!mZoe9pXr4$")]
    #[case("!:<>*#[=^zoeA0'q<7Bka")]
    #[case("                 a lot of room              ")]
    fn strong_passwords_are_accepted(#[case] password: &str) {
        assert_eq!(check(password, &PERSON), Ok(()));
    }

    #[rstest]
    #[case("passwordpassword")]
    #[case("drowssapdrowssap")]
    #[case("p4ssw0rdp4ssw0rd")]
    #[case("PasswordPassword1!")]
    #[case("qwertyuiopqwertyuiop")]
    #[case("monkeymonkeymonkey")]
    #[case("yeknomyeknomyeknom")]
    #[case("iloveyouiloveyou")]
    #[case("letmeinletmeinletmein!")]
    #[case("aaaaaaaaaaaaaaaaaaaa")]
    #[case("abcabcabcabcabcabc")]
    #[case("1234567890123456")]
    fn common_passwords_are_refused(#[case] password: &str) {
        assert_eq!(check(password, &PERSON), Err(PasswordError::Common));
    }

    #[rstest]
    #[case("ZoeOSullivan2024!")]
    #[case("zoe.osullivan@example.org")]
    #[case("gro.elpmaxe@navillus")]
    #[case("navillusonavilluso")]
    #[case("NavillusO'eoZ.2024")]
    #[case("Z0e0$ull1v4nZ0e0$ull1v4n")]
    #[case("5ull!v@n 5ull!v@n")]
    #[case("n4v1llu5n4v1llu5!")]
    #[case("!!2024 zoë o’sullivan 2024!!")]
    #[case("osullivanzoeosullivanzoe")]
    #[case("harbourclinicharbourclinic")]
    #[case("cinilCruobraH-zoe-99")]
    #[case("zoesullivanharbour")]
    #[case("Zoë Zoë Zoë Zoë Zoë")]
    #[case("*****osullivan*****")]
    fn what_is_made_of_the_person_is_refused(#[case] password: &str) {
        let error = check(password, &PERSON).unwrap_err();
        assert!(
            matches!(error, PasswordError::Personal | PasswordError::Common),
            "{error:?}"
        );
    }

    #[rstest]
    #[case("navillusnavillus", PasswordError::Personal)]
    #[case("zoe sullivan zoe 1", PasswordError::Personal)]
    #[case("short", PasswordError::TooShort { min: 15 })]
    #[case("王小明王小明王小明王小明王小明", PasswordError::Common)]
    fn the_reason_is_given(#[case] password: &str, #[case] error: PasswordError) {
        assert_eq!(check(password, &PERSON), Err(error));
    }

    #[rstest]
    #[case("Jürgen", "Größe", "größejürgengröße")]
    #[case("Дмитрий", "Соколов", "соколовдмитрийволокос")]
    #[case("Дмитрий", "Соколов", "sokolovdmitriysokolov")]
    #[case("Bo", "Li", "bolilibobolilibo")]
    #[case("Łukasz", "Wałęsa", "lukasz walesa lukasz")]
    fn names_of_every_script_are_known(
        #[case] given: &str,
        #[case] family: &str,
        #[case] password: &str,
    ) {
        assert_eq!(
            check(password, &[given, family]),
            Err(PasswordError::Personal)
        );
    }

    #[test]
    fn at_least_64_characters_are_accepted() {
        let long = "correct horse battery staple and then some more words ".repeat(4);
        assert_eq!(check(&long, &PERSON), Ok(()));
        assert_eq!(check(&"🐢王ñ e".repeat(51), &PERSON), Ok(()));
    }

    #[test]
    fn huge_passwords_are_refused_before_they_cost_anything() {
        // 256 characters, but only after normalizing.
        let decomposed = "a\u{323}\u{302}".repeat(256);
        for password in ["x y z ".repeat(1_000_000), decomposed, "x".repeat(257)] {
            assert_eq!(check(&password, &PERSON), Err(PasswordError::TooLong));
        }
        let mut hasher = Hasher::default();
        let hash = hasher
            .hash(&SecretString::from("correct horse battery"))
            .unwrap();
        let oversized = SecretString::from("x".repeat(MAX_BYTES + 1));
        assert!(!hasher.verify(&oversized, &hash).unwrap());
    }

    #[test]
    fn a_password_of_substitutes_costs_nothing() {
        let policy = PasswordPolicy { min_length: 15 };
        let crafted = SecretString::from(SUBSTITUTES.repeat(4));
        let begin = std::time::Instant::now();
        for _ in 0..20 {
            policy.check(&crafted, &PERSON).unwrap();
        }
        // One estimate of it alone took a second in a release build.
        assert!(begin.elapsed() < std::time::Duration::from_secs(2));
    }

    #[test]
    fn hashes_are_those_of_other_implementations() {
        use argon2::PasswordVerifier as _;
        // Made by argon2-cffi 25.1.0 with parameters of its own.
        const OTHER: &str = "$argon2id$v=19$m=1024,t=1,p=2$FO3jRrLC69hYMEYTBpOzfw$hIJrGYkWQBRw0k6VvwcYRKiaFqqsHNrvDQCfRqG6rdA";
        let password = SecretString::from("kettle harbour umbrella");
        let mut hasher = Hasher::default();
        assert!(hasher.verify(&password, OTHER).unwrap());
        let hash = hasher.hash(&password).unwrap();
        let known = PasswordHash::new(&hash).unwrap();
        Argon2::default()
            .verify_password(b"kettle harbour umbrella", &known)
            .unwrap();
        // The memory holds what the hash before left.
        assert!(hasher.verify(&password, &hash).unwrap());
    }

    #[test]
    fn composed_and_decomposed_letters_are_the_same_password() {
        let mut hasher = Hasher::default();
        let hash = hasher
            .hash(&SecretString::from("caf\u{e9} au lait s'il vous plaît"))
            .unwrap();
        let decomposed = SecretString::from("cafe\u{301} au lait s'il vous plaît");
        assert!(hasher.verify(&decomposed, &hash).unwrap());
        assert!(
            !hasher
                .verify(&SecretString::from("another"), &hash)
                .unwrap()
        );
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
    }

    /// One way to hide a word.
    fn disguised(word: &str, way: u8) -> String {
        match way {
            0 => word.to_lowercase(),
            1 => word.to_uppercase(),
            2 => word.chars().rev().collect(),
            3 => word
                .to_lowercase()
                .chars()
                .map(|character| match character {
                    'a' => '4',
                    'e' => '3',
                    'i' | 'l' => '1',
                    'o' => '0',
                    's' => '$',
                    't' => '7',
                    other => other,
                })
                .collect(),
            _ => word.to_owned(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn joined_reversed_and_repeated_personal_words_are_refused(
            words in proptest::collection::vec("[A-Z][a-z]{2,10}|[А-Я][а-я]{2,8}|[A-Z][àéîöüñ][a-z]{1,8}", 1..5),
            parts in proptest::collection::vec((any::<prop::sample::Index>(), 0u8..5, "[-_. ]?"), 5..14),
            before in "[!#*]?", after in "(19|20)?[0-9]{0,2}!?",
        ) {
            let joined: String = parts
                .iter()
                .map(|(index, way, separator)| disguised(index.get(&words[..]).as_str(), *way) + separator)
                .collect();
            let password = format!("{before}{joined}{after}");
            let personal: Vec<&str> = words.iter().map(String::as_str).collect();
            prop_assert!(check(&password, &personal).is_err(), "{} {:?}", password, personal);
        }

        #[test]
        fn random_passwords_are_accepted(password in "[!-~]{20}|[a-z]{20}|\\p{L}{20}") {
            prop_assert_eq!(check(&password, &PERSON), Ok(()));
        }

        #[test]
        fn a_name_in_a_long_random_password_is_no_reason(start in "[!-~]{9}", end in "[!-~]{9}") {
            prop_assert_eq!(check(&format!("{start}zoe{end}"), &PERSON), Ok(()));
        }

        #[test]
        fn checking_never_panics(password in "\\PC{0,300}|(\\p{M}|\\p{Cf}|[0-9a-z]){15,60}", personal in "\\PC{0,60}") {
            let _ = check(&password, &[&personal, &password]);
        }
    }
}
