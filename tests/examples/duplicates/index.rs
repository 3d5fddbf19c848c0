//! The accounts that an entry is compared with, chosen in memory as the service chooses them in SQL: a test compares
//! the two (`tests/tests/duplicate_candidates.rs`).

use std::collections::{BTreeSet, HashMap, HashSet};

use account_svc::domain::duplicate::{
    ENOUGH_CANDIDATES, Fingerprint, Frequencies, Identity, MAX_POSTINGS, NameFrequency,
};
use uuid::Uuid;

/// An organization's accounts with their index.
pub(crate) struct Index<'a> {
    accounts: &'a [Identity],
    postings: HashMap<i64, Vec<usize>>,
    names: HashMap<i64, NameFrequency>,
    /// Of all accounts.
    pub(crate) keys: usize,
}

impl<'a> Index<'a> {
    pub(crate) fn new(accounts: &'a [Identity]) -> Self {
        let mut index = Self {
            accounts,
            postings: HashMap::new(),
            names: HashMap::new(),
            keys: 0,
        };
        for (number, account) in accounts.iter().enumerate() {
            let fingerprint = Fingerprint::new(account);
            let keys = fingerprint.blocking_keys;
            index.keys += keys.len();
            for key in keys {
                index.postings.entry(key).or_default().push(number);
            }
            let names = fingerprint.name_hashes;
            if let Some(given) = names.given {
                index.names.entry(given).or_default().as_given_name += 1;
            }
            if let Some(family) = names.family {
                index.names.entry(family).or_default().as_family_name += 1;
            }
        }
        index
    }

    /// The accounts to compare with, in no order: those that the statement of `db::account::find_candidates` reads.
    pub(crate) fn candidates(&self, entry: &Identity) -> Vec<(Uuid, Identity)> {
        let fingerprint = Fingerprint::new(entry);
        let exact = &fingerprint.exact_keys;
        let keys = fingerprint.blocking_keys.iter();
        let mut postings: Vec<(bool, &[usize])> = keys
            .filter_map(|key| {
                let postings = self.postings.get(key)?;
                // The newest accounts.
                let start = postings.len().saturating_sub(MAX_POSTINGS + 1);
                Some((exact.contains(key), &postings[start..]))
            })
            .collect();
        let is_used =
            |(is_exact, postings): &(bool, &[usize])| *is_exact || postings.len() <= MAX_POSTINGS;
        if postings.iter().any(is_used) {
            postings.retain(is_used);
        }
        // Keys are ascending, and stay so where as many accounts have them.
        postings.sort_by_key(|(is_exact, postings)| (!is_exact, postings.len()));
        let equal = postings.iter().filter(|(is_exact, _)| *is_exact);
        let equal: BTreeSet<usize> = equal.flat_map(|(_, postings)| *postings).copied().collect();
        let newest = equal.into_iter().rev().take(MAX_POSTINGS + 1);
        let mut seen: HashSet<usize> = newest.collect();
        let mut read = 0;
        for (is_exact, postings) in postings {
            if !is_exact && read < ENOUGH_CANDIDATES {
                seen.extend(postings);
                read += postings.len();
            }
        }
        seen.into_iter()
            .map(|number| (account_id(number), self.accounts[number].clone()))
            .collect()
    }

    /// How common the names of an entry and its candidates are; the service's counts may be some minutes old.
    pub(crate) fn frequencies(
        &self,
        entry: &Identity,
        candidates: &[(Uuid, Identity)],
    ) -> Frequencies {
        let identities = candidates.iter().map(|(_, identity)| identity);
        let names = identities
            .chain([entry])
            .map(|identity| Fingerprint::new(identity).name_hashes)
            .flat_map(|names| [names.given, names.family]);
        Frequencies {
            accounts: i64::try_from(self.accounts.len()).unwrap_or(i64::MAX),
            names: names
                .flatten()
                .filter_map(|name| Some((name, *self.names.get(&name)?)))
                .collect(),
        }
    }
}

/// Later accounts have greater ids.
pub(crate) fn account_id(number: usize) -> Uuid {
    Uuid::from_u128(number as u128 + 1)
}
