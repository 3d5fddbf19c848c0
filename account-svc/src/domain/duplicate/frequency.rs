//! How common names are in an organization: a rare name that agrees says more than a common one.

use super::keys;
use crate::domain::name::{Folded, PersonName};

/// Accounts below which counts are too few to rely on: they are mixed with those of so many other people.
const ENOUGH_ACCOUNTS: f64 = 100.0;
/// What a count is too high by: the client that an entry is a duplicate of is counted with the others.
const COUNTED_ITSELF: f64 = 0.5;
/// Share of people with a name that no account has: that of a small organization may be common, that of a large one
/// must be rare, or is misspelled. Fitted: `UNSEEN / (accounts + FEW_ACCOUNTS).powf(1.5)`, at least `RAREST`.
const UNSEEN: f64 = 0.18;
const FEW_ACCOUNTS: f64 = 20.0;
const RAREST: f64 = 2e-7;

/// What the frequency of a name is counted by. `None` for a filler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrequencyNames {
    /// The given name, hashed.
    pub given: Option<i64>,
    /// The family name, hashed in the same way, so that names can be looked up in the other's role.
    pub family: Option<i64>,
}

/// How many accounts of an organization have the names of a new entry. Counts may be of some time ago, and zero
/// if never counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Frequencies {
    /// Accounts of the organization.
    pub accounts: i64,
    /// Accounts with this given name.
    pub given_as_given: i64,
    /// Accounts with this family name.
    pub family_as_family: i64,
    /// Accounts with this family name as their given name.
    pub family_as_given: i64,
    /// Accounts with this given name as their family name.
    pub given_as_family: i64,
}

/// What the frequencies of a name are counted and looked up by.
#[must_use]
pub fn frequency_names(name: &PersonName) -> FrequencyNames {
    FrequencyNames {
        given: keys::name_key(&Folded::new(&name.given)),
        family: keys::name_key(&Folded::new(&name.family)),
    }
}

impl Frequencies {
    /// At least what is seen among `candidates`: counts may be older than these.
    pub(super) fn at_least_seen<'a>(
        mut self,
        given: &Folded,
        family: &Folded,
        candidates: impl Iterator<Item = (&'a Folded, &'a Folded)>,
    ) -> Self {
        let mut seen = Self::default();
        for (other_given, other_family) in candidates {
            seen.accounts += 1;
            seen.given_as_given += i64::from(given.equals(other_given));
            seen.family_as_family += i64::from(family.equals(other_family));
            seen.family_as_given += i64::from(family.equals(other_given));
            seen.given_as_family += i64::from(given.equals(other_family));
        }
        for (count, seen) in [
            (&mut self.given_as_given, seen.given_as_given),
            (&mut self.family_as_family, seen.family_as_family),
            (&mut self.family_as_given, seen.family_as_given),
            (&mut self.given_as_family, seen.given_as_family),
        ] {
            *count = seen.max(*count);
        }
        let most = self.given_as_given.max(self.family_as_family);
        self.accounts = self.accounts.max(seen.accounts).max(most).max(1);
        self
    }

    /// The share of people with a name, from how many accounts have it.
    pub(super) fn share(&self, count: i64) -> f64 {
        let accounts = float(self.accounts);
        let seen = (float(count) - COUNTED_ITSELF).max(0.0) / (accounts + ENOUGH_ACCOUNTS);
        let unseen = UNSEEN / (accounts + FEW_ACCOUNTS).powf(1.5);
        seen + unseen.max(RAREST)
    }
}

/// A count as a number to reckon with.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub(super) fn float(count: i64) -> f64 {
    count as f64
}
