//! How likely each of some accounts is the client of a new entry.
//!
//! Each field has a likelihood ratio: how much likelier what was entered is for this client than for anyone
//! (Fellegi and Sunter 1969). They multiply with the prior probability, and the posterior is over all candidates and
//! none of them: two that fit equally well share it.

use std::cmp::Reverse;

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
/// Clients that are not entered yet: a first account is not every new client's duplicate.
const NOT_YET_ENTERED: f64 = 5.0;

/// Part of the best candidate's probability from which another is as good: what differs is not more than a typing
/// error is worth.
const AS_GOOD: f64 = 0.5;

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
        threshold: 0.25,
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

/// The accounts that are probably the client of `query`, best first, and of equally good ones the newest: those whose
/// probability reaches `rules.threshold`, and all whose names are equal after normalization. The probabilities of all
/// candidates add up to at most 1; if all together reach the threshold, those that are nearly as good as the best are
/// shown. The order of `candidates` does not matter.
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
    // Sums of floating-point numbers depend on their order. The newest first: a new account is shown before others
    // that are as good, and so voids an acknowledgement that was given before it.
    matches.sort_unstable_by_key(|found| Reverse(found.candidate.account_id));
    let prior = rules.expected_share / (float(frequencies.accounts) + NOT_YET_ENTERED);
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
                given_name: names.given.field(names.given_share),
                family_name: names.family.field(names.family_share),
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
                given_share: known(&self.given, self.given_as_given),
                family_share: known(&self.family, self.family_as_family),
                are_swapped: false,
                ratio: divided_ratio,
            };
        }
        let (given, family) = if are_swapped { swapped } else { in_order };
        let (given_share, family_share) = if are_swapped {
            (self.given_as_family, self.family_as_given)
        } else {
            (self.given_as_given, self.family_as_family)
        };
        Names {
            given,
            family,
            given_share: known(&self.given, given_share),
            family_share: known(&self.family, family_share),
            are_swapped,
            ratio,
        }
    }
}

/// The share of people with a name; a filler is nobody's.
fn known(name: &Name, share: f64) -> Option<f64> {
    (!name.folded.is_missing()).then_some(share)
}

/// How the names of an account compare.
struct Names {
    given: Evidence,
    family: Evidence,
    /// Shares of people with the names of the entry, in the roles in which they were compared.
    given_share: Option<f64>,
    family_share: Option<f64>,
    are_swapped: bool,
    ratio: f64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use time::{Date, macros::date};

    use super::*;
    use crate::domain::name::PersonName;

    const BORN: Option<Date> = Some(date!(1980 - 02 - 03));
    /// An organization where both names are quite common.
    const COMMON: Frequencies = Frequencies {
        accounts: 10_000,
        given_as_given: 50,
        family_as_family: 50,
        family_as_given: 0,
        given_as_family: 0,
    };

    fn identity(given: &str, family: &str, birth_date: Option<Date>) -> Identity {
        Identity {
            name: PersonName {
                given: given.to_owned(),
                family: family.to_owned(),
            },
            email: None,
            birth_date,
            phone: None,
        }
    }

    /// How one account compares, if it is shown.
    fn shown(new: &Identity, existing: Identity) -> Option<Candidate> {
        let candidates = [(Uuid::nil(), existing)];
        rank(new, &candidates, &COMMON, DuplicateRules::FRONT_DESK).pop()
    }

    #[rstest]
    #[case("Raj", "Patel", "Rajesh", "Patel", Nearness::Nickname, Nearness::Equal)]
    #[case("Pepe", "Ruiz", "José", "Ruiz", Nearness::Nickname, Nearness::Equal)]
    #[case(
        "Hans",
        "Bauer",
        "Johannes",
        "Bauer",
        Nearness::Nickname,
        Nearness::Equal
    )]
    #[case(
        "Sasha",
        "Popov",
        "Alexander",
        "Popov",
        Nearness::Nickname,
        Nearness::Equal
    )]
    #[case(
        "Ana",
        "García",
        "Ana",
        "García López",
        Nearness::Equal,
        Nearness::PartOfName
    )]
    #[case(
        "Ana",
        "García López",
        "Ana",
        "García",
        Nearness::Equal,
        Nearness::PartOfName
    )]
    #[case(
        "Robert",
        "Downey",
        "Robert",
        "Downey Jr.",
        Nearness::Equal,
        Nearness::Equal
    )]
    #[case("John", "Smiht", "John", "Smith", Nearness::Equal, Nearness::OneEdit)]
    #[case(
        "Katharina",
        "Schneider",
        "Katharina",
        "Schnieter",
        Nearness::Equal,
        Nearness::TwoEdits
    )]
    #[case(
        "Filip",
        "Meyer",
        "Philipp",
        "Meyer",
        Nearness::Nickname,
        Nearness::Equal
    )]
    #[case("J.", "Smith", "John", "Smith", Nearness::Initial, Nearness::Equal)]
    #[case(
        "Иван",
        "Иванов",
        "Ivan",
        "Ivanov",
        Nearness::CloseSpelling,
        Nearness::CloseSpelling
    )]
    #[case("Ann", "Lee", "Ann", "Quist", Nearness::Equal, Nearness::Other)]
    #[case("Madonna", "-", "Madonna", "N/A", Nearness::Equal, Nearness::Missing)]
    fn similar_names_with_the_same_birth_date_are_shown(
        #[case] given: &str,
        #[case] family: &str,
        #[case] other_given: &str,
        #[case] other_family: &str,
        #[case] given_nearness: Nearness,
        #[case] family_nearness: Nearness,
    ) {
        let new = identity(given, family, BORN);
        let candidate = shown(&new, identity(other_given, other_family, BORN)).unwrap();
        assert_eq!(candidate.given_name.nearness, given_nearness);
        assert_eq!(candidate.family_name.nearness, family_nearness);
        assert!(!candidate.names_swapped);
    }

    #[rstest]
    #[case::same(BORN, Nearness::Equal, true)]
    #[case::swapped(Some(date!(1980 - 03 - 02)), Nearness::DayMonthSwapped, true)]
    #[case::digit(Some(date!(1980 - 02 - 04)), Nearness::OneDigit, true)]
    #[case::digits_swapped(Some(date!(1908 - 02 - 03)), Nearness::OneDigit, true)]
    #[case::two_parts(Some(date!(1980 - 02 - 28)), Nearness::TwoParts, true)]
    #[case::other(Some(date!(1955 - 05 - 05)), Nearness::Other, false)]
    fn birth_dates_speak_for_and_against(
        #[case] other: Option<Date>,
        #[case] nearness: Nearness,
        #[case] for_it: bool,
    ) {
        let candidate =
            shown(&identity("Ann", "Lee", BORN), identity("Ann", "Lee", other)).unwrap();
        assert_eq!(candidate.birth_date.nearness, nearness);
        assert_eq!(candidate.birth_date.weight > 0.0, for_it);
    }

    #[test]
    fn a_missing_birth_date_says_nothing() {
        let candidate = shown(&identity("Ann", "Lee", BORN), identity("Ann", "Lee", None)).unwrap();
        assert_eq!(candidate.birth_date.nearness, Nearness::Missing);
        assert!(candidate.birth_date.weight.abs() < f64::EPSILON);
    }

    #[test]
    fn swapped_names_are_compared_with_each_other() {
        let candidate = shown(
            &identity("Lee", "Schneider", BORN),
            identity("Schnieder", "Lee", BORN),
        )
        .unwrap();
        assert!(candidate.names_swapped);
        assert_eq!(candidate.given_name.nearness, Nearness::Equal);
        assert_eq!(candidate.family_name.nearness, Nearness::OneEdit);
    }

    #[test]
    fn rare_names_say_more_than_common_ones() {
        let weight = |given_as_given| {
            let frequencies = Frequencies {
                given_as_given,
                ..COMMON
            };
            let candidates = [(Uuid::nil(), identity("Ann", "Lee", None))];
            let new = identity("Ann", "Lee", None);
            rank(&new, &candidates, &frequencies, DuplicateRules::FRONT_DESK)[0].given_name
        };
        let (rare, common) = (weight(1), weight(1_000));
        assert!(rare.weight > common.weight && rare.share < common.share);
    }

    #[test]
    fn candidates_that_fit_equally_share_the_probability() {
        let new = identity("Ann", "Lee", None);
        let account = |number| (Uuid::from_u128(number), identity("Ann", "Lee", None));
        let candidates: Vec<_> = (1..=3).map(account).collect();
        let ranked = rank(&new, &candidates, &COMMON, DuplicateRules::IMPORT);
        let ids: Vec<u128> = ranked
            .iter()
            .map(|found| found.account_id.as_u128())
            .collect();
        // The newest first.
        assert_eq!(ids, [3, 2, 1]);
        assert!(ranked.iter().all(|found| found.score <= 1.0 / 3.0));
    }

    #[test]
    fn several_accounts_of_one_client_do_not_hide_each_other() {
        let copies: Vec<(Uuid, Identity)> = (0..5)
            .map(|_| (Uuid::now_v7(), identity("Jan", "Nowak", BORN)))
            .collect();
        let frequencies = Frequencies {
            accounts: 1_000,
            ..Frequencies::default()
        };
        let rules = DuplicateRules::FRONT_DESK;
        let shown = rank(
            &identity("Jan", "Novak", BORN),
            &copies,
            &frequencies,
            rules,
        );
        assert_eq!(shown.len(), 5);
        assert!(
            shown
                .iter()
                .all(|candidate| candidate.score < rules.threshold)
        );
        // The newest first.
        assert_eq!(shown[0].account_id, copies[4].0);
    }

    proptest! {
        #[test]
        fn ranks_do_not_depend_on_the_order(
            names in prop::collection::vec(("[ab]{1,4}", "[ab]{1,4}", prop::bool::ANY), 1..12),
            turn in 0_usize..12,
            threshold in 0.0..1.0,
        ) {
            let mut candidates: Vec<(Uuid, Identity)> = (1..)
                .zip(&names)
                .map(|(number, (given, family, is_born))| {
                    (Uuid::from_u128(number), identity(given, family, BORN.filter(|_| *is_born)))
                })
                .collect();
            let new = candidates[0].1.clone();
            let rules = DuplicateRules { threshold, expected_share: 0.2 };
            let ranked = rank(&new, &candidates, &COMMON, rules);
            candidates.rotate_left(turn % names.len());
            prop_assert_eq!(&ranked, &rank(&new, &candidates, &COMMON, rules));
            let total: f64 = ranked.iter().map(|found| found.score).sum();
            prop_assert!(total <= 1.0 + 1e-9);
        }

        #[test]
        fn any_texts_are_ranked(given in "\\PC{1,100}", family in "\\PC{1,100}", other in "\\PC{1,100}") {
            let new = identity(&given, &family, BORN);
            let candidates = [
                (Uuid::from_u128(1), identity(&other, &given, None)),
                (Uuid::from_u128(2), identity(&given, &other, BORN)),
            ];
            for found in rank(&new, &candidates, &Frequencies::default(), DuplicateRules::IMPORT) {
                prop_assert!((0.0..=1.0).contains(&found.score));
                prop_assert!(found.given_name.weight.is_finite() && found.family_name.weight.is_finite());
            }
        }
    }
}
