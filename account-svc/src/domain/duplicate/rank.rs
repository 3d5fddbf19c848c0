//! How likely each of some accounts is the client of a new entry.
//!
//! Each field has a likelihood ratio: how much likelier what was entered is for this client than for anyone
//! (Fellegi and Sunter 1969). They multiply with the prior probability, and the posterior is over all candidates and
//! none of them: two that fit equally well share it.

use std::{cmp::Reverse, collections::HashSet, ops::RangeInclusive};

use uuid::Uuid;

use super::{
    Candidate, Frequencies, Identity, evidence,
    frequency::float,
    names::{FullName, Resemblances, Shares},
};

#[cfg(test)]
mod tests;

/// Clients that are not entered yet: a first account is not every new client's duplicate.
const NOT_YET_ENTERED: f64 = 5.0;

/// Part of the best candidate's probability from which another is as good: what differs is not more than a typing
/// error is worth.
const AS_GOOD: f64 = 0.5;

/// What decides which candidates are shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DuplicateRules {
    /// Probability from which a candidate is shown, in [`DuplicateRules::THRESHOLDS`].
    pub threshold: f64,
    /// Share of new entries that are expected to be duplicates, in [`DuplicateRules::EXPECTED_SHARES`].
    pub expected_share: f64,
}

impl DuplicateRules {
    /// Thresholds that an organization may set.
    pub const THRESHOLDS: RangeInclusive<f64> = 0.05..=0.95;
    /// Expected shares that an organization may set.
    pub const EXPECTED_SHARES: RangeInclusive<f64> = 0.001..=0.9;
    /// For staff who enter clients one by one.
    pub const FRONT_DESK: Self = Self {
        threshold: 0.25,
        expected_share: 0.2,
    };
    /// For lists that are imported: much of them may be here already.
    pub const IMPORT: Self = Self {
        threshold: 0.4,
        expected_share: 0.6,
    };
}

/// How an account compares.
struct Match {
    candidate: Candidate,
    /// How much likelier the entry is for this client than for anyone.
    ratio: f64,
    is_equal: bool,
}

/// A new entry beside the accounts that may be of the same client.
pub struct Comparison<'a> {
    entry: &'a Identity,
    name: FullName,
    accounts: Vec<Compared<'a>>,
}

/// An account beside the entry.
struct Compared<'a> {
    account_id: Uuid,
    identity: &'a Identity,
    name: FullName,
    resemblances: Resemblances,
}

impl<'a> Comparison<'a> {
    /// Compares an entry with `candidates`, whose order does not matter.
    #[must_use]
    pub fn new(entry: &'a Identity, candidates: &'a [(Uuid, Identity)]) -> Self {
        let name = FullName::new(&entry.name);
        let mut accounts: Vec<_> = candidates
            .iter()
            .map(|(account_id, identity)| {
                let account = FullName::new(&identity.name);
                Compared {
                    account_id: *account_id,
                    identity,
                    resemblances: name.resemblances(&account),
                    name: account,
                }
            })
            .collect();
        // Sums of floating-point numbers depend on their order. The newest first: a new account is shown before others
        // that are as good, and so voids an acknowledgement that was given before it.
        accounts.sort_unstable_by_key(|account| Reverse(account.account_id));
        Self {
            entry,
            name,
            accounts,
        }
    }

    /// The hashes of the candidates' names, each once.
    #[must_use]
    pub fn name_hashes(&self) -> Vec<i64> {
        let names = self.accounts.iter().map(|account| &account.name);
        let hashes: HashSet<i64> = names
            .flat_map(|name| [name.given.hash, name.family.hash])
            .flatten()
            .collect();
        hashes.into_iter().collect()
    }

    /// The accounts that are probably the client of the entry, best first, and of equally good ones the newest: those
    /// whose probability reaches `rules.threshold`, and all whose names are equal after normalization. The
    /// probabilities of all candidates add up to at most 1; if all together reach the threshold, those that are nearly
    /// as good as the best are shown.
    ///
    /// Without the frequencies of the candidates' names, probabilities are too high: a misspelled common name is taken
    /// for a rare one.
    #[must_use]
    pub fn rank(&self, frequencies: &Frequencies, rules: DuplicateRules) -> Vec<Candidate> {
        let names = self.accounts.iter().map(|account| &account.name);
        let frequencies =
            frequencies.at_least_seen(names.map(|name| (name.given.hash, name.family.hash)));
        let accounts = self.accounts.iter();
        let accounts: Vec<_> = accounts
            .map(|account| (&account.name, &account.resemblances))
            .collect();
        let shares = Shares::new(&self.name, &accounts, &frequencies);
        let matches = self
            .accounts
            .iter()
            .map(|account| self.judge(account, &shares))
            .collect();
        shown(matches, frequencies.accounts, rules)
    }

    fn judge(&self, account: &Compared<'_>, shares: &Shares) -> Match {
        let (entry, identity) = (self.entry, account.identity);
        let names = account.resemblances.compare(&self.name, shares);
        let birth_date = evidence::birth_date(entry.birth_date, identity.birth_date);
        let phone = evidence::phone(entry.phone.as_deref(), identity.phone.as_deref());
        let email = evidence::email(entry.email.as_deref(), identity.email.as_deref());
        Match {
            ratio: names.ratio * birth_date.ratio * phone.ratio * email.ratio,
            is_equal: account.resemblances.are_equal,
            candidate: Candidate {
                account_id: account.account_id,
                score: 0.0,
                given_name: names.given.reported(names.given_share),
                family_name: names.family.reported(names.family_share),
                names_swapped: names.are_swapped,
                email: email.reported(None),
                birth_date: birth_date.reported(None),
                phone: phone.reported(None),
            },
        }
    }
}

/// Those of the accounts that are shown, with their probabilities.
fn shown(matches: Vec<Match>, accounts: i64, rules: DuplicateRules) -> Vec<Candidate> {
    let prior = rules.expected_share / (float(accounts) + NOT_YET_ENTERED);
    let total: f64 = matches.iter().map(|found| prior * found.ratio).sum();
    let evidence = 1.0 - rules.expected_share + total;
    let best = matches.iter().map(|found| found.ratio).fold(0.0, f64::max);
    // Several accounts of one client share the probability: together they may reach what none does alone.
    let least = if total / evidence >= rules.threshold {
        rules.threshold.min(AS_GOOD * prior * best / evidence)
    } else {
        rules.threshold
    };
    let mut shown: Vec<Candidate> = matches
        .into_iter()
        .map(|found| {
            let score = prior * found.ratio / evidence;
            (found, score)
        })
        .filter(|(found, score)| found.is_equal || *score >= least)
        .map(|(found, score)| Candidate {
            score,
            ..found.candidate
        })
        .collect();
    shown.sort_by(|one, other| other.score.total_cmp(&one.score));
    shown
}
