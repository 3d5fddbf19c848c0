//! What is equal after folding, and what is not.

use proptest::prelude::*;
use rstest::rstest;

use super::*;

#[rstest]
#[case::case_and_accents("José María", "JOSE MARIA")]
#[case::stroke("Wałęsa", "walesa")]
#[case::umlaut_written_out("Müller", "Mueller")]
#[case::umlaut_left_out("Müller", "MULLER")]
#[case::umlaut_written_out_in_one_word("Müller-Lüdenscheidt", "Mueller-Ludenscheidt")]
#[case::umlaut_written_out_in_the_other("Müller-Lüdenscheidt", "Muller-Luedenscheidt")]
#[case::decomposed("Zoe\u{308}", "Zoë")]
#[case::sharp_s("Groß", "GROSS")]
#[case::norse("Sølvi Næss", "Soelvi Naess")]
#[case::ring("Åberg", "Aaberg")]
#[case::okina("Kaʻahumanu", "Kaahumanu")]
#[case::apostrophes("O’Connor", "O'Connor")]
#[case::spacing("de la Cruz", "DelaCruz")]
#[case::dotless_i("Işık", "ISIK")]
#[case::dotted_i("İnci", "inci")]
#[case::vietnamese("Nguyễn", "Nguyen")]
#[case::fullwidth("Ｓｍｉｔｈ", "Smith")]
#[case::invisible("An\u{200B}na", "Anna")]
#[case::final_sigma("Γιώργος", "ΓΙΩΡΓΟΣ")]
#[case::greek_accents("Παπαδάκης", "ΠΑΠΑΔΑΚΗΣ")]
#[case::cyrillic("Фёдор", "ФЕДОР")]
#[case::arabic_vowels("مُحَمَّد", "محمد")]
#[case::arabic_hamza("أحمد", "احمد")]
#[case::arabic_endings("ليلى فاطمة", "ليلي فاطمه")]
#[case::tatweel("محـمد", "محمد")]
#[case::hebrew_points("שָׂרָה", "שרה")]
#[case::devanagari_nukta("फ़िरोज़", "फिरोज")]
#[case::kana("タナカ", "たなか")]
#[case::halfwidth_kana("ﾀﾅｶ", "タナカ")]
#[case::middle_dot("ジョン・スミス", "ジョンスミス")]
#[case::hangul("\u{1100}\u{1175}\u{11B7}", "김")]
#[case::suffix("Downey Jr.", "Downey")]
#[case::title("Dr. Anna", "Anna")]
fn what_people_write_differently_is_equal(#[case] one: &str, #[case] other: &str) {
    assert!(
        Folded::new(one).equals(&Folded::new(other)),
        "{}",
        Folded::new(one).plain()
    );
    assert!(Folded::new(other).equals(&Folded::new(one)));
}

#[rstest]
#[case::written_out_and_left_out("Mueller", "Muller")]
#[case::letters("Anna", "Anne")]
#[case::voicing("カ", "ガ")]
#[case::vowel_signs("राम", "रमा")]
#[case::ideographs("王", "汪")]
#[case::scripts("Иванов", "Ivanov")]
#[case::no_plain_form("𐞳", "𐞴")]
#[case::suffix_alone("Jr", "Sr")]
fn other_names_are_not_equal(#[case] one: &str, #[case] other: &str) {
    assert!(!Folded::new(one).equals(&Folded::new(other)));
}

#[test]
fn a_name_in_another_script_has_its_letters_in_latin() {
    assert_eq!(Folded::new("Иванов").latin(), "ivanov");
    assert_eq!(Folded::new("Müller").latin(), "muller");
}

#[rstest]
#[case("Downey Sr.", Some(1))]
#[case("Downey, JR, PhD", Some(2))]
#[case("Windsor III", Some(3))]
#[case("Downey PhD", None)]
#[case("Junior", None)]
fn a_suffix_tells_the_generation(#[case] name: &str, #[case] generation: Option<u8>) {
    assert_eq!(Folded::new(name).generation(), generation);
}

#[test]
fn words_are_those_of_the_name() {
    let name = Folded::new("Dr. Anna-María (Rosa) Jr.");
    let words: Vec<&str> = name.words().collect();
    assert_eq!(words, ["anna", "maria", "rosa"]);
}

/// One character of Arabic stands for eighteen, and four words.
#[test]
fn of_a_name_that_expands_not_all_is_compared() {
    let folded = Folded::new(&"\u{FDFA}".repeat(100));
    assert!(folded.plain().chars().count() <= MOST_CHARACTERS);
    assert!(folded.equals(&Folded::new(&"\u{FDFA}".repeat(90))));
}

proptest! {
    #[test]
    fn any_text_folds_and_is_equal_to_itself_in_capitals(name in "\\PC{1,100}") {
        let folded = Folded::new(&name);
        prop_assert_eq!(folded.is_missing(), folded.words().next().is_none());
        prop_assert_eq!(folded.words().collect::<String>(), folded.plain());
    }

    #[test]
    fn letters_in_capitals_are_equal(name in "[a-zà-öø-ÿα-ωа-я]{1,20}") {
        let folded = Folded::new(&name);
        prop_assume!(!folded.is_missing());
        prop_assert!(folded.equals(&Folded::new(&name.to_uppercase())));
    }

    #[test]
    fn equality_is_symmetric(one in "[aäAeuü o]{1,5}", other in "[aäAeuü o]{1,5}") {
        let (one, other) = (Folded::new(&one), Folded::new(&other));
        prop_assert_eq!(one.equals(&other), other.equals(&one));
    }
}
