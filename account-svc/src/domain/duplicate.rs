//! How likely two entries of a client list are the same person.

use time::Date;
use usher_runtime::hidden_debug;
use uuid::Uuid;

use super::name::PersonName;

mod evidence;
mod frequency;
mod keys;
mod name;
mod names;
mod rank;
mod typing;

pub use frequency::{Frequencies, NameFrequency, NameHashes};
pub use keys::{ENOUGH_CANDIDATES, Fingerprint, KEYS_VERSION, MAX_POSTINGS};
pub use rank::{Comparison, DuplicateRules};

/// What entries are compared by. `Debug` shows nothing of it.
#[derive(Clone)]
pub struct Identity {
    /// Full name.
    pub name: PersonName,
    /// Email in canonical form.
    pub email: Option<String>,
    /// Birth date.
    pub birth_date: Option<Date>,
    /// Phone in E.164.
    pub phone: Option<String>,
}

hidden_debug!(Identity);

/// What is known of an email.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmailVerdict {
    /// No email to check.
    NotGiven,
    /// Free.
    Available,
    /// An account of this organization has it.
    InOrganization(Uuid),
    /// A Person elsewhere on the platform has proved it.
    OnPlatform,
}

/// What a duplicate check finds.
#[derive(Debug, Clone)]
pub struct DuplicateReport {
    /// What is known of the email.
    pub email: EmailVerdict,
    /// Accounts of similar name, best score first.
    pub candidates: Vec<Candidate>,
    /// Whether there are more than are shown.
    pub more_candidates: bool,
    /// What to send back to go on in spite of the candidates; empty without any.
    pub acknowledgement: String,
}

/// How one field of two entries compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldComparison {
    /// Equal after normalization.
    Agrees,
    /// Near: see [`Nearness`].
    Similar,
    /// Different.
    Differs,
    /// At least one side has no value.
    Missing,
}

/// How near one field of two entries is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nearness {
    /// Equal after normalization.
    Equal,
    /// A nickname, or the form of the name in another language.
    Nickname,
    /// One letter is missing, too many, another, or swapped with the next one.
    OneEdit,
    /// Two such mistakes.
    TwoEdits,
    /// More mistakes than two, or in a short name fewer; or equal Latin forms in two scripts, or in other characters of
    /// the same sound.
    CloseSpelling,
    /// One of several names, or the beginning of one.
    PartOfName,
    /// The first letter.
    Initial,
    /// Day and month of a date are swapped.
    DayMonthSwapped,
    /// One digit of a date is another, or swapped with the next one.
    OneDateDigit,
    /// Two of day, month and year are equal.
    TwoDateParts,
    /// Different.
    Other,
    /// At least one side has no value.
    Missing,
}

impl Nearness {
    /// Whether it agrees.
    #[must_use]
    pub fn comparison(self) -> FieldComparison {
        match self {
            Self::Equal => FieldComparison::Agrees,
            Self::Nickname
            | Self::OneEdit
            | Self::TwoEdits
            | Self::CloseSpelling
            | Self::PartOfName
            | Self::Initial
            | Self::DayMonthSwapped
            | Self::OneDateDigit
            | Self::TwoDateParts => FieldComparison::Similar,
            Self::Other => FieldComparison::Differs,
            Self::Missing => FieldComparison::Missing,
        }
    }
}

/// What one field says about two entries being one person.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FieldMatch {
    /// How near the two values are.
    pub nearness: Nearness,
    /// Match weight: the binary logarithm of how much likelier this is for one person than for two. Positive
    /// speaks for one person; 0 says nothing.
    pub weight: f64,
    /// For a name: the share of people whose name is written as the one of the new entry, 0 to 1: of the organization's
    /// accounts, those that have it, and those that have one of the candidates' names and would be written so.
    pub share: Option<f64>,
}

/// An account that may be the same client.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The account.
    pub account_id: Uuid,
    /// Probability that it is the same client, 0 to 1. Those of all candidates add up to at most 1.
    pub score: f64,
    /// Given name of the new entry.
    pub given_name: FieldMatch,
    /// Family name of the new entry.
    pub family_name: FieldMatch,
    /// Whether the given name of the new entry was compared with the family name of the account, and its family
    /// name with the given name.
    pub names_swapped: bool,
    /// Email.
    pub email: FieldMatch,
    /// Birth date.
    pub birth_date: FieldMatch,
    /// Phone.
    pub phone: FieldMatch,
}

#[cfg(test)]
mod tests {
    use time::macros::date;

    use super::*;

    fn profile(given: &str, family: &str) -> Identity {
        Identity {
            name: PersonName {
                given: given.to_owned(),
                family: family.to_owned(),
            },
            email: None,
            birth_date: None,
            phone: None,
        }
    }

    fn born(profile: Identity, birth_date: Date) -> Identity {
        Identity {
            birth_date: Some(birth_date),
            ..profile
        }
    }

    /// Compares with one of 100,000 accounts, 1 % of which have each of the two names.
    fn ranked(new: &Identity, existing: &Identity) -> Option<Candidate> {
        let frequency = NameFrequency {
            as_given_name: 1_000,
            as_family_name: 1_000,
        };
        let hashes = Fingerprint::new(new).name_hashes;
        let hashes = hashes.given.into_iter().chain(hashes.family);
        let frequencies = Frequencies {
            accounts: 100_000,
            names: hashes.map(|hash| (hash, frequency)).collect(),
        };
        let candidates = [(Uuid::nil(), existing.clone())];
        let comparison = Comparison::new(new, &candidates);
        comparison
            .rank(&frequencies, DuplicateRules::FRONT_DESK)
            .pop()
    }

    #[test]
    fn equal_names_are_shown_even_when_all_else_differs() {
        let one = born(profile("José", "García"), date!(1980 - 01 - 01));
        let other = born(profile("JOSE", "Garcia"), date!(1999 - 12 - 31));
        let candidate = ranked(&one, &other).unwrap();
        assert_eq!(candidate.given_name.nearness, Nearness::Equal);
        assert_eq!(
            candidate.birth_date.nearness.comparison(),
            FieldComparison::Differs
        );
    }

    #[test]
    fn birth_dates_raise_and_lower_the_score_and_missing_ones_do_neither() {
        let new = born(profile("Ann", "Lee"), date!(1980 - 02 - 03));
        let score = |existing| ranked(&new, &existing).unwrap().score;
        let same = score(born(profile("Ann", "Lee"), date!(1980 - 02 - 03)));
        let unknown = score(profile("Ann", "Lee"));
        let other = score(born(profile("Ann", "Lee"), date!(1955 - 05 - 05)));
        assert!(
            same > unknown && unknown > other,
            "{same} {unknown} {other}"
        );
    }

    #[test]
    fn similar_common_names_are_shown_with_the_same_birth_date() {
        let new = born(profile("Bill", "Smith"), date!(1980 - 02 - 03));
        let same = born(profile("William", "Smith"), date!(1980 - 02 - 03));
        let namesake = born(profile("William", "Smith"), date!(1955 - 05 - 05));
        let candidate = ranked(&new, &same).unwrap();
        assert_eq!(candidate.given_name.nearness, Nearness::Nickname);
        assert_eq!(ranked(&new, &namesake), None);
    }
}
