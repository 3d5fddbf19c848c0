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
#[case::umlaut_written_out_in_one_word_of_three("Gruen Kohl Böhm", "Grün Kohl Boehm")]
#[case::umlaut_written_out_in_one_place("Schoenhüber", "Schönhüber")]
#[case::umlaut_written_out_in_the_other_place("Schönhueber", "Schönhüber")]
#[case::umlaut_written_out_and_left_out("Schonhueber", "Schönhüber")]
#[case::umlaut_written_out_on_each_side("Schoenhüber", "Schönhueber")]
#[case::umlaut_before_its_second_letter("Agüero", "Aguero")]
#[case::umlaut_written_out_before_its_second_letter("Agüero", "Agueero")]
#[case::rings("Åård", "Aard")]
#[case::two_kinds_of_umlaut("Sørensen", "Sörensen")]
#[case::decomposed_and_written_out("Scho\u{308}nhueber", "Schoenhu\u{308}ber")]
#[case::invisible_before_the_marks("Mu\u{34F}\u{308}ller", "Mueller")]
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
#[case::written_out_in_another_place("Schoenhuber", "Schonhueber")]
#[case::one_umlaut_for_two("Schoenhuber", "Schonhüber")]
#[case::umlaut_for_two_letters("Müller", "Mueeller")]
#[case::second_letter_of_another_umlaut("Müller", "Muaeller")]
#[case::ring_written_out_as_an_umlaut("Åse", "Aese")]
#[case::two_marks("Kå\u{308}", "Kaae")]
#[case::mark_of_the_folding("Mu\u{FDD0}ller", "Mueller")]
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
    fn equality_is_symmetric(one in "[aäAåeuü o]{1,5}", other in "[aäAåeuü o]{1,5}") {
        let (one, other) = (Folded::new(&one), Folded::new(&other));
        prop_assert_eq!(one.equals(&other), other.equals(&one));
    }

    #[test]
    fn without_umlauts_other_letters_are_another_name(one in "[kaeou]{1,6}", other in "[kaeou]{1,6}") {
        let is_equal = Folded::new(&one).equals(&Folded::new(&other));
        prop_assert!(!is_equal || one == other);
    }
}
