//! Names of people: what is accepted, and how two of them compare.

use rphonetic::{DoubleMetaphone, Encoder as _};
use unicode_normalization::{UnicodeNormalization as _, char::is_combining_mark};

use super::{
    autolink,
    text::{self, TextError},
};

mod folded;
pub mod nicknames;

pub use folded::Folded;

/// Most characters of a given or family name.
pub const MAX_LENGTH: usize = 100;
/// Most characters of a name that stands in one field.
const MAX_FULL_LENGTH: usize = 200;

/// Characters of a phonetic code: enough to tell long names apart.
const SOUND_LENGTH: usize = 8;

/// A full name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersonName {
    /// Given name, 1 to 100 characters.
    pub given: String,
    /// Family name, 1 to 100 characters.
    pub family: String,
}

/// Why a name was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a text that can be shown.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A mail program may make a link of it.
    #[error(
        "looks like a web or email address, which mail programs turn into a link; leave out `://`, `www.` and \
         `@`, and write a space after a full stop, as in `St. John`"
    )]
    Link,
    /// An organization's name with a scheme or an email address.
    #[error("holds a web address with `://` or an email address; write the name alone")]
    Address,
}

/// A given or family name.
///
/// # Errors
/// If it shows nothing, is longer than 100 characters, holds control characters, or could become a link in an
/// email.
pub fn part(text: &str) -> Result<String, NameError> {
    personal(text, MAX_LENGTH)
}

/// The whole name of a person, in one field.
///
/// # Errors
/// As for [`part`], with at most 200 characters.
pub fn full(text: &str) -> Result<String, NameError> {
    personal(text, MAX_FULL_LENGTH)
}

fn personal(text: &str, max: usize) -> Result<String, NameError> {
    match text::required(text, max)? {
        name if autolink::may_be_linked(&name) => Err(NameError::Link),
        name => Ok(name),
    }
}

/// The name of an organization: `Booking.com` is one.
///
/// # Errors
/// If it shows nothing, has more than `max` characters, holds control characters, a scheme with `://` or an
/// email address.
pub fn organization(text: &str, max: usize) -> Result<String, NameError> {
    optional_organization(text, max).and_then(|name| {
        if name.is_empty() {
            // Says whether there was anything.
            text::required(text, max).map_err(NameError::from)
        } else {
            Ok(name)
        }
    })
}

/// The name of an organization, or nothing.
///
/// # Errors
/// As for [`organization`], but for a name that shows nothing.
pub fn optional_organization(text: &str, max: usize) -> Result<String, NameError> {
    match text::optional(text, max)? {
        name if autolink::has_scheme_or_address(&name) => Err(NameError::Address),
        name => Ok(name),
    }
}

impl PersonName {
    /// Equal for two names exactly if they are equal but for case, accents, spacing, punctuation and the
    /// order of the two.
    #[must_use]
    pub fn key(&self) -> String {
        in_order(folded(&self.given), folded(&self.family))
    }

    /// Equal for names that sound alike or are nicknames of each other: what close spellings are looked
    /// up by.
    #[must_use]
    pub fn sound(&self) -> String {
        let given = self
            .given
            .split(separates_words)
            .find(|word| !word.is_empty());
        let given = folded(given.unwrap_or(&self.given));
        in_order(
            sound(formal(&self.given, &given)),
            sound(&folded(&self.family)),
        )
    }
}

fn in_order(one: String, other: String) -> String {
    let (first, second) = if one <= other {
        (one, other)
    } else {
        (other, one)
    };
    format!("{first} {second}")
}

fn separates_words(character: char) -> bool {
    character.is_whitespace() || character == '-' || character == '.'
}

/// A name in lower-case ASCII letters and digits: `Ł` as `l`, `Š` as `s`, other scripts transliterated. A
/// name that cannot be written so keeps its own letters, and one without letters stays as it is.
fn folded(name: &str) -> String {
    let folded: String = any_ascii::any_ascii(&name.nfkc().collect::<String>())
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|character| character.to_ascii_lowercase())
        .collect();
    [folded, without_accents(name)]
        .into_iter()
        .find(|form| !form.is_empty())
        .unwrap_or_else(|| name.to_lowercase())
}

/// A name without case, accents and punctuation, in its own script.
fn without_accents(name: &str) -> String {
    name.nfkd()
        .filter(|&character| !is_combining_mark(character) && character.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect()
}

fn sound(folded: &str) -> String {
    let code = DoubleMetaphone::new(Some(SOUND_LENGTH)).encode(folded);
    // Digits and vowel-only names have little or no sound of their own.
    if code.len() < 2 {
        folded.to_owned()
    } else {
        code
    }
}

fn formal<'a>(given: &str, folded: &'a str) -> &'a str {
    nicknames::rows(&Folded::new(given))
        .first()
        .copied()
        .unwrap_or(folded)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn name(given: &str, family: &str) -> PersonName {
        PersonName {
            given: given.to_owned(),
            family: family.to_owned(),
        }
    }

    #[rstest]
    #[case(name("José María", "García-López"), name("JOSE MARIA", "Garcia Lopez"))]
    #[case(name("Łukasz", "Wałęsa"), name("Lukasz", "Walesa"))]
    #[case(name("Søren", "Ørsted"), name("Soren", "Orsted"))]
    #[case(name("Sinéad", "O'Connor"), name("sinead", "OConnor"))]
    #[case(name("Nguyễn", "Văn An"), name("Van An", "Nguyen"))]
    #[case(name("Zoe\u{308}", "de la Cruz"), name("Zoë", "DelaCruz"))]
    #[case(name("Мария", "Иванова"), name("МАРИЯ", "Иванова"))]
    fn equal_names_are_always_found(#[case] one: PersonName, #[case] other: PersonName) {
        assert_eq!(one.key(), other.key());
    }

    #[test]
    fn names_show_something_and_become_no_link() {
        assert_eq!(part(" Ma.Cristina\u{200B}").unwrap(), "Ma.Cristina");
        assert_eq!(part(" "), Err(TextError::Missing { max: 100 }.into()));
        assert_eq!(part("\u{3164}"), Err(TextError::Invisible.into()));
        assert_eq!(part("evil.com"), Err(NameError::Link));
        assert_eq!(full("Ann Lee, www.evil"), Err(NameError::Link));
        assert!(part(&"x".repeat(101)).is_err() && full(&"x".repeat(200)).is_ok());
    }

    #[test]
    fn organizations_are_called_as_they_like_but_for_addresses() {
        assert_eq!(organization("Booking.com", 20).unwrap(), "Booking.com");
        assert_eq!(organization("https://acme", 20), Err(NameError::Address));
        assert_eq!(
            organization("\u{2060}", 20),
            Err(TextError::Invisible.into())
        );
        assert_eq!(optional_organization("\u{2060}", 20).unwrap(), "");
        assert_eq!(
            optional_organization("ann@bank.example", 20),
            Err(NameError::Address)
        );
    }

    #[test]
    fn names_without_letters_have_a_key_of_their_own() {
        assert_ne!(name("!", "?").key(), name("?", "-").key());
        assert_ne!(name("王", "芳").key(), name("李", "娜").key());
        // A letter that has no ASCII form.
        assert_eq!(name("K", "𐞳").key(), name(" 𐞳-", "K").key());
    }

    proptest! {
        #[test]
        fn keys_ignore_case_order_and_spacing(given in "\\p{Latin}{1,20}", family in "\\p{Latin}{1,20}") {
            let plain = name(&given, &family);
            let swapped = name(&format!(" {family}-"), &given);
            prop_assert_eq!(plain.key(), swapped.key());
        }
    }
}
