//! How common names are in an organization: a rare name that agrees says more than a common one.

use std::collections::HashMap;

use usher_runtime::hidden_debug;

/// Accounts below which counts are too few to rely on: they are mixed with those of so many other people.
const ENOUGH_ACCOUNTS: f64 = 100.0;
/// What a count is too high by: the client that an entry is a duplicate of is counted with the others.
const COUNTED_ITSELF: f64 = 0.5;
/// Share of people with a name that no account has: that of a small organization may be common, that of a large one
/// must be rare. Fitted: `UNSEEN / (accounts + FEW_ACCOUNTS).powi(2)`, at least `RAREST`.
const UNSEEN: f64 = 0.75;
const FEW_ACCOUNTS: f64 = 20.0;
const RAREST: f64 = 1e-7;

/// What the frequencies of a name are counted and looked up by. `None` for a filler.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NameHashes {
    /// Of the given name.
    pub given: Option<i64>,
    /// Of the family name, made in the same way, so that names can be looked up in the other's role.
    pub family: Option<i64>,
}

/// How many accounts of an organization have a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NameFrequency {
    /// Accounts with it as given name.
    pub as_given_name: i64,
    /// Accounts with it as family name.
    pub as_family_name: i64,
}

/// How many accounts an organization has, and how many of them have some names. May be of some time ago.
#[derive(Clone, Default)]
pub struct Frequencies {
    /// Accounts of the organization; 0 if never counted.
    pub accounts: i64,
    /// By hash ([`NameHashes`]). A name that is left out counts as one that no account has.
    pub names: HashMap<i64, NameFrequency>,
}

hidden_debug!(NameHashes, Frequencies { accounts });

impl Frequencies {
    /// At least what is seen among candidates, of which the hashes of the given and family names are given: counts may
    /// be older than these.
    pub(super) fn at_least_seen(
        &self,
        candidates: impl Iterator<Item = (Option<i64>, Option<i64>)>,
    ) -> Self {
        let mut known = self.clone();
        let mut seen = Self::default();
        for (given, family) in candidates {
            seen.accounts += 1;
            if let Some(given) = given {
                seen.names.entry(given).or_default().as_given_name += 1;
            }
            if let Some(family) = family {
                seen.names.entry(family).or_default().as_family_name += 1;
            }
        }
        for (name, seen) in seen.names {
            let count = known.names.entry(name).or_default();
            count.as_given_name = count.as_given_name.max(seen.as_given_name);
            count.as_family_name = count.as_family_name.max(seen.as_family_name);
        }
        let counts = known.names.values();
        let most = counts.flat_map(|count| [count.as_given_name, count.as_family_name]);
        known.accounts = most.fold(known.accounts.max(seen.accounts).max(1), i64::max);
        known
    }

    /// The share of people with a given name.
    pub(super) fn of_given_name(&self, name: Option<i64>) -> f64 {
        self.share(self.count(name).as_given_name)
    }

    /// The share of people with a family name.
    pub(super) fn of_family_name(&self, name: Option<i64>) -> f64 {
        self.share(self.count(name).as_family_name)
    }

    fn count(&self, name: Option<i64>) -> NameFrequency {
        let count = name.and_then(|name| self.names.get(&name));
        count.copied().unwrap_or_default()
    }

    /// The share of people with a name, by how many accounts have it.
    fn share(&self, count: i64) -> f64 {
        let accounts = float(self.accounts);
        let seen = (float(count) - COUNTED_ITSELF).max(0.0) / (accounts + ENOUGH_ACCOUNTS);
        let unseen = UNSEEN / (accounts + FEW_ACCOUNTS).powi(2);
        seen + unseen.max(RAREST)
    }
}

/// A count as a number to reckon with.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub(super) fn float(count: i64) -> f64 {
    count as f64
}
