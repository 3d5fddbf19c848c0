//! How likely each of some accounts is the client of a new entry.
//!
//! Each field has a likelihood ratio: how much likelier what was entered is for this client than for anyone
//! (Fellegi and Sunter 1969). They multiply with the prior probability, and the posterior is over all candidates and
//! none of them: two that fit equally well share it.

use uuid::Uuid;

use super::{
    Candidate, Frequencies, Identity, Nearness,
    evidence::{self, Evidence},
    frequency::float,
    keys,
    names::{self, Name},
};

/// Share of entries with given and family name swapped.
const SWAPPED: f64 = 0.03;
/// Likelihood that given and family name are divided elsewhere: `Anna` `Maria Rossi`.
const DIVIDED_ELSEWHERE: f64 = 0.002;

/// What decides which candidates are shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DuplicateRules {
    /// Probability from which a candidate is shown, 0.05 to 0.95.
    pub threshold: f64,
    /// Share of new entries that are expected to be duplicates, 0.001 to 0.9.
    pub expected_share: f64,
}

impl DuplicateRules {
    /// For staff who enter clients one by one.
    pub const FRONT_DESK: Self = Self {
        threshold: 0.3,
        expected_share: 0.2,
    };
    /// For lists that are imported: much of them may be here already.
    pub const IMPORT: Self = Self {
        threshold: 0.4,
        expected_share: 0.6,
    };
}

/// The new entry, prepared to be compared with many.
struct Query<'a> {
    identity: &'a Identity,
    given: Name,
    family: Name,
    exact: Vec<i64>,
    /// Shares of people with the given name as given name, and so on.
    given_as_given: f64,
    family_as_family: f64,
    family_as_given: f64,
    given_as_family: f64,
}

/// An account that the new entry is compared with.
struct Other<'a> {
    account_id: Uuid,
    identity: &'a Identity,
    given: Name,
    family: Name,
}

/// How an account compares.
struct Match {
    candidate: Candidate,
    /// How much likelier the entry is for this client than for anyone.
    ratio: f64,
    is_equal: bool,
}

/// The accounts that are probably the client of `query`, best first: those whose probability reaches
/// `rules.threshold`, and all whose names are equal after normalization. The probabilities of all candidates add
/// up to at most 1. The order of `candidates` does not matter.
#[must_use]
pub fn rank(
    query: &Identity,
    candidates: &[(Uuid, Identity)],
    frequencies: &Frequencies,
    rules: DuplicateRules,
) -> Vec<Candidate> {
    let others: Vec<Other<'_>> = candidates
        .iter()
        .map(|(account_id, identity)| Other {
            account_id: *account_id,
            identity,
            given: Name::new(&identity.name.given),
            family: Name::new(&identity.name.family),
        })
        .collect();
    let given = Name::new(&query.name.given);
    let family = Name::new(&query.name.family);
    let frequencies = frequencies.at_least_seen(
        &given.folded,
        &family.folded,
        others
            .iter()
            .map(|other| (&other.given.folded, &other.family.folded)),
    );
    let share = |name: &Name, count| {
        if name.folded.is_missing() {
            1.0
        } else {
            frequencies.share(count)
        }
    };
    let query = Query {
        identity: query,
        exact: keys::exact(&given.folded, &family.folded),
        given_as_given: share(&given, frequencies.given_as_given),
        family_as_family: share(&family, frequencies.family_as_family),
        family_as_given: share(&family, frequencies.family_as_given),
        given_as_family: share(&given, frequencies.given_as_family),
        given,
        family,
    };
    let mut matches: Vec<Match> = others.iter().map(|other| query.compare(other)).collect();
    // Sums of floating-point numbers depend on their order.
    matches.sort_unstable_by_key(|found| found.candidate.account_id);
    let prior = rules.expected_share / float(frequencies.accounts);
    let total: f64 = matches.iter().map(|found| prior * found.ratio).sum();
    let evidence = 1.0 - rules.expected_share + total;
    let mut shown: Vec<Candidate> = matches
        .into_iter()
        .map(|found| {
            let score = prior * found.ratio / evidence;
            (found, score)
        })
        .filter(|(found, score)| found.is_equal || *score >= rules.threshold)
        .map(|(found, score)| Candidate {
            score,
            ..found.candidate
        })
        .collect();
    shown.sort_by(|one, other| other.score.total_cmp(&one.score));
    shown
}

impl Query<'_> {
    fn compare(&self, other: &Other<'_>) -> Match {
        let is_equal = keys::exact(&other.given.folded, &other.family.folded)
            .iter()
            .any(|key| self.exact.contains(key));
        let names = self.compare_names(other, is_equal);
        let birth_date = evidence::birth_date(self.identity.birth_date, other.identity.birth_date);
        let phone = evidence::phone(
            self.identity.phone.as_deref(),
            other.identity.phone.as_deref(),
        );
        let email = evidence::email(
            self.identity.email.as_deref(),
            other.identity.email.as_deref(),
        );
        Match {
            ratio: names.ratio * birth_date.ratio * phone.ratio * email.ratio,
            is_equal,
            candidate: Candidate {
                account_id: other.account_id,
                score: 0.0,
                given_name: names.given.field(Some(self.given_as_given)),
                family_name: names.family.field(Some(self.family_as_family)),
                names_swapped: names.are_swapped,
                email: email.field(None),
                birth_date: birth_date.field(None),
                phone: phone.field(None),
            },
        }
    }

    fn compare_names(&self, other: &Other<'_>, is_equal: bool) -> Names {
        let in_order = (
            names::GIVEN.compare(&self.given, &other.given, self.given_as_given),
            names::FAMILY.compare(&self.family, &other.family, self.family_as_family),
        );
        let swapped = (
            names::FAMILY.compare(&self.given, &other.family, self.given_as_family),
            names::GIVEN.compare(&self.family, &other.given, self.family_as_given),
        );
        // How many people have these names in this order, and in the other.
        let in_order_share = (1.0 - SWAPPED) * self.given_as_given * self.family_as_family;
        let swapped_share = SWAPPED * self.family_as_given * self.given_as_family;
        let share = in_order_share + swapped_share;
        let likelihood =
            |share, (given, family): &(Evidence, Evidence)| share * given.ratio * family.ratio;
        let in_order_likelihood = likelihood(in_order_share, &in_order);
        let swapped_likelihood = likelihood(swapped_share, &swapped);
        let are_swapped = swapped_likelihood > in_order_likelihood;
        let ratio = (in_order_likelihood + swapped_likelihood) / share;
        let divided_ratio = DIVIDED_ELSEWHERE / share;
        if is_equal && divided_ratio > ratio {
            let half = Evidence {
                nearness: Nearness::PartOfName,
                ratio: divided_ratio.sqrt(),
            };
            return Names {
                given: half,
                family: half,
                are_swapped: false,
                ratio: divided_ratio,
            };
        }
        let (given, family) = if are_swapped { swapped } else { in_order };
        Names {
            given,
            family,
            are_swapped,
            ratio,
        }
    }
}

/// How the names of an account compare.
struct Names {
    given: Evidence,
    family: Evidence,
    are_swapped: bool,
    ratio: f64,
}
