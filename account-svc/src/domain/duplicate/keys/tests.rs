//! Which entries share a key.

use proptest::prelude::*;
use rstest::rstest;
use time::macros::date;

use super::*;
use crate::domain::name::PersonName;

fn identity(given: &str, family: &str) -> Identity {
    Identity {
        name: PersonName {
            given: given.to_owned(),
            family: family.to_owned(),
        },
        email: None,
        birth_date: None,
        phone: None,
    }
}

fn exact(identity: &Identity) -> Vec<i64> {
    Fingerprint::new(identity).exact_keys
}

fn blocking(identity: &Identity) -> Vec<i64> {
    Fingerprint::new(identity).blocking_keys
}

/// What is left of the blocking keys in a large organization.
fn selective(identity: &Identity) -> Vec<i64> {
    let mut common = Vec::new();
    add_affix_keys(&mut common, &FoldedName::new(&identity.name));
    let mut keys = blocking(identity);
    keys.retain(|key| !common.contains(key));
    keys
}

fn meet(one: &[i64], other: &[i64]) -> bool {
    one.iter().any(|key| other.contains(key))
}

#[rstest]
#[case::accents(
    identity("José María", "García-López"),
    identity("JOSE MARIA", "Garcia Lopez")
)]
#[case::order(identity("Nguyễn", "Văn An"), identity("Van An", "Nguyen"))]
#[case::boundary(identity("Anna Maria", "Rossi"), identity("Anna", "Maria Rossi"))]
#[case::order_and_boundary(identity("Anna Maria", "Rossi"), identity("Rossi Anna", "Maria"))]
#[case::spacing(identity("Zoe\u{308}", "de la Cruz"), identity("Zoë", "DelaCruz"))]
#[case::umlauts(identity("Jürgen", "Müller"), identity("Juergen", "Muller"))]
#[case::umlaut_of_three(
    identity("Anna", "Grün Kohl Böhm"),
    identity("Gruen Kohl Böhm", "Anna")
)]
#[case::suffix(identity("Robert", "Downey"), identity("Robert", "Downey Jr."))]
#[case::suffix_alone(identity("Robert", "Downey"), identity("Robert Downey", "Jr."))]
#[case::suffixes_alone(identity("Robert", "Downey"), identity("Robert Downey Jr.", "Ph.D."))]
#[case::numeral_alone(identity("Robert", "Downey III"), identity("III", "Robert Downey"))]
#[case::suffix_moved(identity("João", "Silva Neto"), identity("João Silva", "Neto"))]
#[case::suffix_swapped(identity("Neto", "João Silva"), identity("Silva", "João"))]
#[case::suffix_before(identity("Downey", "Jr. Robert"), identity("Robert", "Downey Jr."))]
#[case::suffixes_that_may_be_names(
    identity("Silva", "Neto Junior"),
    identity("Silva Neto", "Junior")
)]
#[case::title_moved(identity("Dr Anna", "Rossi"), identity("Dr", "Anna Rossi"))]
#[case::title_alone(identity("Prof. Dr.", "Anna Rossi"), identity("Anna", "Rossi"))]
#[case::umlaut_and_suffix(identity("Jörg", "Müller"), identity("Joerg Mueller", "Jr"))]
#[case::umlaut_with_an_accent(identity("Knud", "Ǿrsted"), identity("Knud", "Oersted"))]
#[case::umlaut_in_full_width(identity("Ｕ\u{308}nal", "Kaya"), identity("Uenal", "Kaya"))]
#[case::invisible_letter(identity("An\u{3164}na", "Rossi"), identity("Anna", "Rossi"))]
#[case::persian(identity("علی", "کریمی"), identity("علي", "كريمي"))]
#[case::greek(identity("Γιώργος", "Παπαδάκης"), identity("ΓΙΩΡΓΟΣ", "ΠΑΠΑΔΑΚΗΣ"))]
#[case::fillers(identity("Madonna", "-"), identity("N/A", "madonna"))]
#[case::no_plain_form(identity("K", "𐞳"), identity(" 𐞳-", "K"))]
fn equal_names_share_a_key(#[case] one: Identity, #[case] other: Identity) {
    assert!(meet(&exact(&one), &exact(&other)));
}

#[rstest]
#[case::fillers(identity("Madonna", "-"), identity("Bjork", "-"))]
#[case::no_names(identity("-", "N/A"), identity("-", "N/A"))]
#[case::ideographs(identity("王", "芳"), identity("李", "娜"))]
#[case::written_out(identity("Anna", "Mueller"), identity("Anna", "Muller"))]
#[case::second_letter_left_out(identity("Yue", "Wang"), identity("Yu", "Wang"))]
#[case::two_second_letters(identity("Michael", "Mueller"), identity("Michael", "Muller"))]
#[case::suffixes_as_names(identity("Ana", "Neto"), identity("Ana", "Filho"))]
#[case::suffix_as_name(identity("Ana", "Neto"), identity("Ana", "-"))]
#[case::title_as_name(identity("Herr", "Schmidt"), identity("Frau", "Schmidt"))]
fn other_names_share_none(#[case] one: Identity, #[case] other: Identity) {
    assert!(!meet(&exact(&one), &exact(&other)));
}

#[rstest]
#[case::nickname(identity("Pepe", "Ruiz"), identity("José", "Ruiz"))]
#[case::nickname_of_two(identity("Sasha", "Popov"), identity("Alexander", "Popov"))]
#[case::nickname_of_an_umlaut(identity("Joerg", "Ruiz"), identity("George", "Ruiz"))]
#[case::nickname_and_umlaut(identity("Hans", "Müller"), identity("Johannes", "Mueller"))]
#[case::slip_and_umlaut(identity("Katharina", "Müller"), identity("Kahtarina", "Mueller"))]
#[case::umlaut_and_slip(identity("Jürgen", "Fischer"), identity("Juergen", "Ficsher"))]
#[case::umlaut_of_a_part(identity("Anna", "Müller-Schmidt"), identity("Ana", "Mueller"))]
#[case::umlaut_of_a_last_part(
    identity("Anna", "Schmidt-Schönhüber"),
    identity("Ana", "Schoenhüber")
)]
#[case::first_part_and_slip(identity("Ana", "García"), identity("Anna", "García López"))]
#[case::part(identity("Ana", "López"), identity("Ana", "García López"))]
#[case::part_behind_a_particle(identity("Ana", "Cruz"), identity("Ana", "de la Cruz"))]
#[case::part_of_given_name(identity("Lucía", "Rossi"), identity("Marta Lucía", "Rossi"))]
#[case::part_in_two_scripts(identity("Иван", "Петров"), identity("Ivan", "Ivanov-Petrov"))]
#[case::scripts(identity("Иван", "Иванов"), identity("Ivan", "Ivanov"))]
fn similar_names_share_a_key_of_few_accounts(#[case] one: Identity, #[case] other: Identity) {
    assert!(meet(&selective(&one), &selective(&other)));
}

#[test]
fn two_misspelled_names_share_a_key() {
    let (one, other) = (identity("Micheal", "Smiht"), identity("Michael", "Smith"));
    assert!(meet(&blocking(&one), &blocking(&other)));
}

#[test]
fn other_names_meet_by_birth_date_and_phone() {
    let one = Identity {
        birth_date: Some(date!(1980 - 02 - 03)),
        phone: Some("+4915112345678".to_owned()),
        ..identity("Ann", "Lee")
    };
    let of_date = Identity {
        phone: None,
        ..one.clone()
    };
    let of_phone = Identity {
        birth_date: None,
        ..one.clone()
    };
    let other = Identity {
        name: identity("Bo", "Quist").name,
        ..one
    };
    assert!(meet(&blocking(&of_date), &blocking(&other)));
    assert!(meet(&blocking(&of_phone), &blocking(&other)));
}

#[test]
fn names_of_one_word_without_umlauts_have_few_keys() {
    assert_eq!(blocking(&identity("Bogumił", "Kowalski")).len(), 7);
}

/// Of equal names, one for each number of umlauts that are written out, and those of other names are not more.
#[rstest]
#[case::one("Bogumił", "Müller", 2)]
#[case::two("Bögumił", "Müller", 3)]
#[case::many("Päiviä", "Hämäläinen", 3)]
fn umlauts_add_few_keys(#[case] given: &str, #[case] family: &str, #[case] exact_keys: usize) {
    let named = identity(given, family);
    assert_eq!(exact(&named).len(), exact_keys);
    assert_eq!(blocking(&named).len(), 6 + exact_keys);
    let born = Identity {
        birth_date: Some(date!(1980 - 02 - 03)),
        ..named
    };
    assert_eq!(blocking(&born).len(), 8 + exact_keys);
}

/// They are stored: an account is found, and its keys are removed, only while they stay the same.
#[test]
fn the_keys_are_those_that_are_stored() {
    // Others need another version.
    assert_eq!(KEYS_VERSION, 1);
    assert_eq!(exact(&identity("Ann", "Lee")), [2_086_422_103_474_613_313]);
    let everything = Identity {
        birth_date: Some(date!(1980 - 02 - 03)),
        phone: Some("+4915112345678".to_owned()),
        ..identity("Иван", "Müller-Łuksza")
    };
    let digest = |entries: &mut dyn Iterator<Item = Identity>| {
        entries.fold(0_i64, |digest, entry| {
            let Fingerprint {
                blocking_keys: keys,
                name_hashes: NameHashes { given, family },
                ..
            } = Fingerprint::new(&entry);
            let hashes = keys.into_iter().chain(given).chain(family);
            hashes.fold(digest, |digest, key| digest.rotate_left(5) ^ key)
        })
    };
    assert_eq!(
        digest(&mut std::iter::once(everything)),
        6_199_941_731_234_376_515
    );
    // Whatever is in the tables.
    let words = |text: &'static str, separator: fn(char) -> bool| {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.flat_map(move |line| line.split(separator))
    };
    let nicknames = words(include_str!("../../nicknames.txt"), char::is_whitespace);
    let fillers = words(include_str!("../../fillers.txt"), |letter| letter == ';');
    let names = words(SCRIPTS, |letter| letter == ';');
    let tables = [
        digest(&mut nicknames.map(|name| identity(name, "Lee"))),
        digest(&mut fillers.map(|filler| identity("Ann", filler))),
        digest(&mut names.map(|name| identity(name, name))),
    ];
    assert_eq!(
        tables,
        [
            -5_256_691_605_507_272_258,
            5_861_637_437_826_091_146,
            2_484_982_832_694_326_932
        ]
    );
}

/// Names as people write them, in many ways and scripts.
const SCRIPTS: &str = "Dr. Anna-María (Rosa) Jr.; Wałęsa; Groß; Næss; Åberg; Kaʻahumanu; O’Connor; Işık; İnci; Nguyễn
Ｓｍｉｔｈ; Γιώργος; Παπαδάκης; Фёдор Достоевский; Ґудзь; مُحَمَّد; أحمد; ليلى فاطمة; محـمد; שָׂרָה כֹּהֵן; फ़िरोज़; राम कुमार; タナカ; ﾀﾅｶ
ジョン・スミス; 王芳; 김민준; สมชาย ใจดี; დავით; Արամ; ታደሰ; தமிழ்; বিশ্বাস; ਸਿੰਘ; ලංකා; ខ្មែរ; မောင်; Ĳsbrand; Đặng; Þór; ẞ; 𐞳; ﷺ; ½; Ⅷ";

fn proper_word() -> impl Strategy<Value = String> {
    // Neither titles, suffixes nor fillers such as `kkk`.
    "k[a-zà-öø-þ]{0,8}[a-jl-z]"
}

/// A word in two spellings of its umlauts.
fn spelled_word() -> impl Strategy<Value = (String, String)> {
    const SPELLINGS: [[&str; 3]; 7] = [
        ["ä", "a", "ae"],
        ["ö", "o", "oe"],
        ["ü", "u", "ue"],
        ["å", "a", "aa"],
        ["ø", "o", "oe"],
        ["æ", "ae", "ae"],
        ["ß", "ss", "ss"],
    ];
    // In one of the two it is as it is, or both are the same: `Mueller` is not `Muller`.
    let spelled = (0..SPELLINGS.len(), 0..3_usize, 0..3_usize);
    let umlaut = spelled.prop_map(|(umlaut, spelling, kind)| {
        let spellings = SPELLINGS[umlaut];
        let spelled = match kind {
            0 => (spellings[0], spellings[spelling]),
            1 => (spellings[spelling], spellings[0]),
            _ => (spellings[spelling], spellings[spelling]),
        };
        (spelled.0.to_owned(), spelled.1.to_owned())
    });
    let letter = "[a-z]".prop_map(|letter| (letter.clone(), letter));
    let letters = prop::collection::vec(prop_oneof![umlaut, letter], 1..6);
    letters.prop_map(|letters| {
        let (one, other): (Vec<_>, Vec<_>) = letters.into_iter().unzip();
        // No filler.
        (
            format!("k{}j", one.concat()),
            format!("k{}j", other.concat()),
        )
    })
}

fn equal(one: &FoldedName, other: &FoldedName) -> bool {
    let (one, other) = (one.wholes(), other.wholes());
    one.iter()
        .any(|one| other.iter().any(|other| one.equals(other)))
}

fn affix() -> impl Strategy<Value = String> {
    let affixes = ["Dr.", "Frau", "miss", "JR", "Neto", "junior", "III", "PhD"];
    prop::sample::select(affixes.to_vec()).prop_map(str::to_owned)
}

proptest! {
    #[test]
    fn keys_are_few_and_sorted(given in "\\PC{1,100}", family in "\\PC{1,100}") {
        let Fingerprint { exact_keys, blocking_keys, .. } =
            Fingerprint::new(&identity(&given, &family));
        prop_assert!(exact_keys.len() <= 6);
        prop_assert!(blocking_keys.is_sorted_by(|one, other| one < other));
        prop_assert!(exact_keys.iter().all(|key| blocking_keys.contains(key)));
    }

    #[test]
    fn keys_ignore_case_order_and_boundary(
        words in prop::collection::vec(prop_oneof![2 => proper_word(), 1 => affix()], 2..6),
        cut in 1_usize..5,
        other_cut in 1_usize..5,
        turn in 0_usize..5,
    ) {
        let divided = |words: &[String], cut: usize, separator| {
            let (given, family) = words.split_at(cut.min(words.len() - 1));
            identity(&given.join(" "), &family.join(separator))
        };
        let plain = divided(&words, cut, " ");
        let mut turned: Vec<String> = words.iter().map(|word| word.to_uppercase()).collect();
        turned.rotate_left(turn % words.len());
        let other = divided(&turned, other_cut, "-");
        prop_assert!(meet(&exact(&plain), &exact(&other)));
    }

    #[test]
    fn keys_ignore_how_umlauts_are_spelled(
        words in prop::collection::vec(spelled_word(), 2..5),
        cut in 1_usize..4,
        other_cut in 1_usize..4,
        turn in 0_usize..4,
    ) {
        let divided = |words: &[String], cut: usize| {
            let (given, family) = words.split_at(cut.min(words.len() - 1));
            identity(&given.join(" "), &family.join("-"))
        };
        let (one, mut other): (Vec<_>, Vec<_>) = words.into_iter().unzip();
        let one = divided(&one, cut);
        let count = other.len();
        other.rotate_left(turn % count);
        let other = divided(&other, other_cut);
        prop_assert!(meet(&exact(&one), &exact(&other)));
        let (one, other) = (FoldedName::new(&one.name), FoldedName::new(&other.name));
        prop_assert!(equal(&one, &other) && equal(&other, &one));
    }

    #[test]
    fn keys_ignore_titles_and_suffixes_in_either_field(
        names in prop::collection::vec(proper_word(), 2..4),
        titles in prop::sample::subsequence(vec!["Prof.", "Dr."], 0..=2),
        suffixes in prop::sample::subsequence(vec!["Jr.", "PhD"], 0..=2),
        cut in 1_usize..7,
        is_swapped in any::<bool>(),
    ) {
        let of_names = names.iter().map(String::as_str);
        let words: Vec<&str> = titles.into_iter().chain(of_names).chain(suffixes).collect();
        let (one, other) = words.split_at(cut.min(words.len() - 1));
        let (one, other) = (one.join(" "), other.join(" "));
        let typed = if is_swapped { identity(&other, &one) } else { identity(&one, &other) };
        let plain = identity(&names[0], &names[1..].join(" "));
        prop_assert!(meet(&exact(&typed), &exact(&plain)), "{one} | {other}");
    }

    #[test]
    fn one_edit_leaves_a_key(
        given in "[a-z]{4,10}",
        family in "[a-z]{2,10}",
        at in 0_usize..10,
        letter in "[a-z]",
        kind in 0..4,
    ) {
        let mut edited: Vec<char> = given.chars().collect();
        let at = at % (edited.len() - 1);
        let letter = letter.chars().next().unwrap();
        match kind {
            0 => drop(edited.remove(at)),
            1 => edited.insert(at, letter),
            2 => edited[at] = letter,
            _ => edited.swap(at, at + 1),
        }
        let edited: String = edited.into_iter().collect();
        prop_assume!(!Folded::new(&edited).is_missing());
        let keys = blocking(&identity(&given, &family));
        prop_assert!(meet(&keys, &blocking(&identity(&edited, &family))));
        let keys = blocking(&identity(&family, &given));
        prop_assert!(meet(&keys, &blocking(&identity(&family, &edited))));
    }
}
