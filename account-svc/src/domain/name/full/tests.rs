//! Which full names are equal, and which are not.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use rstest::rstest;

use super::*;

fn folded(given: &str, family: &str) -> FoldedName {
    FoldedName::new(&PersonName {
        given: given.to_owned(),
        family: family.to_owned(),
    })
}

fn are_equal(one: &FoldedName, other: &FoldedName) -> bool {
    let (one, other) = (one.wholes(), other.wholes());
    let equals = |one: &Whole| other.iter().any(|other| one.equals(other));
    one.iter().any(equals)
}

#[rstest]
#[case::order(("Jürgen", "Schoenhüber"), ("Schönhueber", "Juergen"))]
#[case::boundary(("Jörg Günter", "Böhm"), ("Joerg", "Günter Boehm"))]
#[case::order_and_boundary(("Jörg Günter", "Böhm"), ("Günter Boehm", "Joerg"))]
#[case::double_name(("Jörg", "Müller-Lüdenscheidt"), ("Jörg", "Mueller Lüdenscheidt"))]
#[case::three_words(("Gruen Kohl Böhm", "Ida"), ("Grün Kohl Boehm", "Ida"))]
#[case::title(("Dr. Jörg", "Müller"), ("Joerg", "Muller"))]
#[case::title_alone(("Frau", "Käthe Müller"), ("Kaethe", "Müller"))]
#[case::suffix(("Jörg", "Müller Jr."), ("Joerg Müller", "Jr"))]
#[case::suffix_with_an_umlaut(("Jörg", "Müller Jünior"), ("Joerg", "Mueller Juenior"))]
#[case::at_the_boundary(("Ida-Å", "Eder"), ("Eder", "Ida Aa"))]
#[case::names_that_repeat(("Boe", "Bo"), ("Bo", "Boe"))]
#[case::umlauts_that_repeat(("Bö Boe", "Bo"), ("Boe", "Bo Bö"))]
#[case::of_no_other_letters(("Aea", "Ä"), ("Aeae", "A"))]
#[case::of_no_other_letters_in_order(("Ea", "Å"), ("Aa", "Ea"))]
fn spellings_of_one_name_are_equal(#[case] one: (&str, &str), #[case] other: (&str, &str)) {
    let (one, other) = (folded(one.0, one.1), folded(other.0, other.1));
    assert!(are_equal(&one, &other));
    assert!(are_equal(&other, &one));
}

#[rstest]
#[case::written_out_and_left_out(("Anna", "Mueller"), ("Anna", "Muller"))]
#[case::written_out_in_another_place(("Joe", "Xu"), ("Jo", "Xue"))]
#[case::one_umlaut_for_two(("Joe", "Xu"), ("Jo", "Xü"))]
#[case::at_the_boundary(("Ida", "Aeder"), ("Ida", "Eder"))]
#[case::order_of_letters(("Aae", "K"), ("Aea", "K"))]
#[case::names_that_repeat(("Boe", "Boe"), ("Bo", "Boe"))]
fn other_names_are_not_equal(#[case] one: (&str, &str), #[case] other: (&str, &str)) {
    let (one, other) = (folded(one.0, one.1), folded(other.0, other.1));
    assert!(!are_equal(&one, &other));
    assert!(!are_equal(&other, &one));
}

/// Dots are punctuation: with them and without, one name.
#[rstest]
fn initials_beside_a_name_are_a_name(
    #[values("K. A.", "K.A.", "k. a.", "K A", "N. A.", "n.a.")] initials: &str,
) {
    let name = folded(initials, "Smith");
    assert!(!name.given.is_missing());
    let letters: String = initials.chars().filter(|letter| *letter != '.').collect();
    assert!(are_equal(&name, &folded(&letters, "Smith")));
    assert!(are_equal(&name, &folded("Smith", initials)));
    assert!(!are_equal(&name, &folded("-", "Smith")));
    assert!(!are_equal(&name, &folded("N/A", "Smith")));
}

#[rstest]
fn initials_that_are_a_filler_are_no_name_beside_none(
    #[values("N. A.", "n.a.", "k. A.", "n.a. n.a.")] filler: &str,
    #[values("-", "n.a.", "K.A.", "Unknown", "N/A")] other: &str,
) {
    for name in [folded(filler, other), folded(other, filler)] {
        assert!(name.given.is_missing() && name.family.is_missing());
        assert!(name.wholes().is_empty());
    }
}

#[rstest]
fn what_no_initials_are_written_with_makes_a_filler(#[values("N/A", "S/D", "k/a")] filler: &str) {
    assert!(folded(filler, "Smith").given.is_missing());
}

/// Each letter could begin them.
#[test]
fn long_names_of_two_letters_are_compared_in_little_time() {
    let name = folded(&"eäå".repeat(33), &"eäå".repeat(33));
    let other = folded(&"eäå".repeat(33), &"aae".repeat(33));
    let started = Instant::now();
    for _ in 0..200 {
        assert!(are_equal(&name, &name));
        let _ = are_equal(&name, &other);
    }
    assert!(started.elapsed() < Duration::from_secs(2));
}

/// All spellings of a text, each from where its order is least.
fn spellings(text: &str) -> HashSet<Vec<u8>> {
    let mut spellings = vec![String::new()];
    for letter in text.chars() {
        let (plain, second) = match letter {
            'ä' => ('a', Some('e')),
            'å' => ('a', Some('a')),
            'ö' => ('o', Some('e')),
            other => (other, None),
        };
        for spelling in &mut spellings {
            spelling.push(plain);
        }
        let written_out: Vec<_> = second
            .into_iter()
            .flat_map(|second| {
                spellings
                    .iter()
                    .map(move |spelling| format!("{spelling}{second}"))
            })
            .collect();
        spellings.extend(written_out);
    }
    let turned = spellings.into_iter().map(|spelling| {
        let mut letters = spelling.into_bytes();
        let start = least_rotation(&letters);
        letters.rotate_left(start);
        letters
    });
    turned.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Two names are equal exactly if they have a spelling in common.
    #[test]
    fn equality_is_that_of_spellings(
        given in "[aeoäöåb]{1,4}",
        family in "[aeoäöåb]{1,3}",
        other_given in "[aeoäöåb]{1,4}",
        other_family in "[aeoäöåb]{1,3}",
    ) {
        let (one, other) = (folded(&given, &family), folded(&other_given, &other_family));
        for name in [&one.given, &one.family, &other.given, &other.family] {
            prop_assume!(!name.is_missing());
        }
        let all = spellings(&format!("{given}{family}"));
        let others = spellings(&format!("{other_given}{other_family}"));
        prop_assert_eq!(are_equal(&one, &other), !all.is_disjoint(&others));
        prop_assert_eq!(are_equal(&other, &one), !all.is_disjoint(&others));
    }
}
