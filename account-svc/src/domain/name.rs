//! Names of people: what is accepted, and how they are folded to be compared.

use usher_runtime::hidden_debug;

use super::{
    autolink,
    text::{self, TextError},
};

mod fillers;
mod folded;
mod full;
pub mod nicknames;
mod spelling;
mod words;

pub use folded::Folded;
pub use full::{FoldedName, Whole};
pub use spelling::{Spellings, skeleton};
pub use words::Words;

/// Most characters of a given or family name.
pub const MAX_LENGTH: usize = 100;
/// Most characters of a name that stands in one field.
const MAX_FULL_LENGTH: usize = 200;

/// A full name. `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct PersonName {
    /// Given name, 1 to 100 characters.
    pub given: String,
    /// Family name, 1 to 100 characters.
    pub family: String,
}

hidden_debug!(PersonName);

impl PersonName {
    /// Whether both names are the same but for what folding leaves out, such as case, accents and titles. Both then have
    /// the same duplicates.
    #[must_use]
    pub fn folds_as(&self, other: &Self) -> bool {
        let (one, other) = (FoldedName::new(self), FoldedName::new(other));
        one.given.is_same(&other.given) && one.family.is_same(&other.family)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn names_fold_alike_in_any_case_but_not_with_another_suffix() {
        let name = |given: &str, family: &str| PersonName {
            given: given.to_owned(),
            family: family.to_owned(),
        };
        assert!(name("ann", "O'BRIEN").folds_as(&name("Ann", "O’Brien")));
        assert!(!name("Ann", "Lee").folds_as(&name("Lee", "Ann")));
        assert!(!name("Rob", "Lee Jr.").folds_as(&name("Rob", "Lee Sr.")));
        assert!(name("Dr. Rob", "Lee Jr.").folds_as(&name("Rob", "Lee II")));
        assert!(!name("Jo", "Müller").folds_as(&name("Jo", "Muller")));
        assert!(name("N. A.", "Lee").folds_as(&name("N A", "Lee")));
        assert!(!name("N. A.", "-").folds_as(&name("N A", "-")));
    }

    #[test]
    fn debug_shows_no_name() {
        let name = PersonName {
            given: "Katarzyna".to_owned(),
            family: "Nowak".to_owned(),
        };
        let shown = format!("{name:?} {:?}", Folded::new(&name.given));
        assert_eq!(shown, "PersonName { .. } Folded { .. }");
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
}
