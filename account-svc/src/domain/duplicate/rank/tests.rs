//! What is shown of which candidates.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use rstest::rstest;
use time::{Date, macros::date};

use super::*;
use crate::domain::{
    duplicate::{Fingerprint, NameFrequency, Nearness},
    name::PersonName,
};

const BORN: Option<Date> = Some(date!(1980 - 02 - 03));
/// Accounts of the organization.
const ACCOUNTS: i64 = 10_000;

/// Of these accounts, so many have the given and the family name of `of`.
fn frequencies(of: &Identity, given: i64, family: i64) -> Frequencies {
    let hashes = Fingerprint::new(of).name_hashes;
    let mut names: HashMap<i64, NameFrequency> = HashMap::new();
    if let Some(hash) = hashes.given {
        names.entry(hash).or_default().as_given_name = given;
    }
    if let Some(hash) = hashes.family {
        names.entry(hash).or_default().as_family_name = family;
    }
    Frequencies {
        accounts: ACCOUNTS,
        names,
    }
}

/// Both names are quite common.
fn common(of: &Identity) -> Frequencies {
    frequencies(of, 50, 50)
}

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

fn rank(
    entry: &Identity,
    candidates: &[(Uuid, Identity)],
    frequencies: &Frequencies,
    rules: DuplicateRules,
) -> Vec<Candidate> {
    Comparison::new(entry, candidates).rank(frequencies, rules)
}

/// How one account compares, if it is shown.
fn shown(new: &Identity, existing: Identity) -> Option<Candidate> {
    let candidates = [(Uuid::nil(), existing)];
    rank(new, &candidates, &common(new), DuplicateRules::FRONT_DESK).pop()
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
    "Katarzyna",
    "Zając-Wiśniewska",
    "Katarzyna",
    "Wiśniewska-Zając",
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
#[case(
    "Robert",
    "Downey",
    "Robert Downey",
    "Jr.",
    Nearness::PartOfName,
    Nearness::PartOfName
)]
#[case(
    "João",
    "Silva Neto",
    "João Silva",
    "Neto",
    Nearness::PartOfName,
    Nearness::PartOfName
)]
#[case(
    "Dr Anna",
    "Rossi",
    "Dr",
    "Anna Rossi",
    Nearness::PartOfName,
    Nearness::PartOfName
)]
#[case(
    "Hans",
    "Müller",
    "Johannes",
    "Mueller",
    Nearness::Nickname,
    Nearness::Equal
)]
#[case(
    "Ana",
    "Mueller",
    "Ana",
    "Müller-Schmidt",
    Nearness::Equal,
    Nearness::PartOfName
)]
#[case(
    "Ana",
    "Schönhueber",
    "Ana",
    "Öz-Schoenhüber",
    Nearness::Equal,
    Nearness::PartOfName
)]
#[case(
    "Ana",
    "Schönhueber-Oez",
    "Ana",
    "Öz-Schoenhüber",
    Nearness::Equal,
    Nearness::PartOfName
)]
#[case(
    "Ana",
    "López",
    "Ana",
    "García López",
    Nearness::Equal,
    Nearness::PartOfName
)]
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
#[case::digit(Some(date!(1980 - 02 - 04)), Nearness::OneDateDigit, true)]
#[case::digits_swapped(Some(date!(1908 - 02 - 03)), Nearness::OneDateDigit, true)]
#[case::two_parts(Some(date!(1980 - 02 - 28)), Nearness::TwoDateParts, true)]
#[case::other(Some(date!(1955 - 05 - 05)), Nearness::Other, false)]
fn birth_dates_speak_for_and_against(
    #[case] other: Option<Date>,
    #[case] nearness: Nearness,
    #[case] for_it: bool,
) {
    let candidate = shown(&identity("Ann", "Lee", BORN), identity("Ann", "Lee", other)).unwrap();
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
fn father_and_son_of_one_name_are_two() {
    let entry = identity("Robert", "Downey Jr.", BORN);
    let weight = |family| {
        let existing = identity("Robert", family, BORN);
        shown(&entry, existing).unwrap().family_name.weight
    };
    assert!(weight("Downey Sr.") < weight("Downey") - 4.0);
    assert!((weight("Downey") - weight("Downey II")).abs() < f64::EPSILON);
    let other_date = Some(date!(1955 - 05 - 05));
    assert!(shown(&entry, identity("Robert", "Downey", other_date)).is_some());
    assert_eq!(
        shown(&entry, identity("Robert", "Downey Sr.", other_date)),
        None
    );
    // Equal names in another order are of one generation.
    for (given, family) in [("Junior", "da Silva Neto"), ("Ana Neto", "Silva Junior")] {
        let swapped = identity(family, given, other_date);
        assert!(shown(&identity(given, family, BORN), swapped).is_some());
    }
    // Wherever the suffix stands.
    for suffix in ["Sr.", "III"] {
        let other = identity("Robert Downey", suffix, other_date);
        assert_eq!(shown(&entry, other), None);
    }
    let same = identity("Robert Downey", "Jr.", other_date);
    assert!(shown(&entry, same).is_some());
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
    let weight = |given| {
        let candidates = [(Uuid::nil(), identity("Ann", "Lee", None))];
        let new = identity("Ann", "Lee", None);
        let frequencies = frequencies(&new, given, 50);
        rank(&new, &candidates, &frequencies, DuplicateRules::FRONT_DESK)[0].given_name
    };
    let (rare, common) = (weight(1), weight(1_000));
    assert!(rare.weight > common.weight && rare.share < common.share);
}

/// Most who are entered as `Jonh Smith` are called John Smith: such a stranger is no more likely one of those who are
/// there than another John Smith is.
#[test]
fn a_misspelled_common_name_says_no_more_than_the_name_itself() {
    let (john, jonh) = (
        identity("John", "Smith", None),
        identity("Jonh", "Smith", None),
    );
    let candidates = [(Uuid::nil(), john.clone())];
    let rules = DuplicateRules {
        threshold: 0.0,
        ..DuplicateRules::FRONT_DESK
    };
    let score = |entry, johns| {
        let frequencies = frequencies(&john, johns, 100);
        rank(entry, &candidates, &frequencies, rules)[0].score
    };
    assert!(score(&jonh, 500) < 1.5 * score(&john, 500));
    // A rare one does.
    assert!(score(&jonh, 1) > 20.0 * score(&jonh, 500));
}

#[test]
fn debug_shows_no_identity() {
    let entry = identity("Katarzyna", "Nowak", BORN);
    assert_eq!(format!("{entry:?}"), "Identity { .. }");
}

#[test]
fn candidates_that_fit_equally_share_the_probability() {
    let new = identity("Ann", "Lee", None);
    let account = |number| (Uuid::from_u128(number), identity("Ann", "Lee", None));
    let candidates: Vec<_> = (1..=3).map(account).collect();
    let ranked = rank(&new, &candidates, &common(&new), DuplicateRules::IMPORT);
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

/// Each of these characters is written out as eighteen letters.
#[test]
fn the_longest_names_are_compared_in_little_time() {
    let name = |last: char| format!("{}{last}", "\u{FDFA}".repeat(99));
    let candidates: Vec<(Uuid, Identity)> = ('a'..='z')
        .map(|last| (Uuid::now_v7(), identity(&name(last), &name(last), BORN)))
        .collect();
    let new = identity(&name('0'), &name('0'), BORN);
    let started = Instant::now();
    let shown = rank(&new, &candidates, &common(&new), DuplicateRules::IMPORT);
    assert!(started.elapsed() < Duration::from_secs(2));
    assert!(!shown.is_empty());
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
        let ranked = rank(&new, &candidates, &common(&new), rules);
        candidates.rotate_left(turn % names.len());
        prop_assert_eq!(&ranked, &rank(&new, &candidates, &common(&new), rules));
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
