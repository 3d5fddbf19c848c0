//! What accounts that may be the same client are found by: keys that both have, hashed, under one index.
//!
//! The hashes are stored. Whoever changes a key, a row of nicknames, or how names are folded (`any_ascii` and
//! `unicode-normalization` take part in that), raises [`KEYS_VERSION`].

use super::Identity;
use crate::domain::name::{Folded, PersonName, nicknames};

/// What the stored keys and [name hashes](super::name_hashes) are derived by: those of accounts with an older
/// version are derived anew in the background.
pub const KEYS_VERSION: i16 = 1;

/// Most accounts of one key: what more of them have is too common to tell them apart. Of equal names, more than are
/// shown.
pub const MAX_POSTINGS: usize = 50;
/// Candidates from which no more common key is looked up.
pub const ENOUGH_CANDIDATES: usize = 60;

/// Letters at the beginning or end of a name that a key holds.
const AFFIX: usize = 2;

/// What a key is made of. Kept apart, so that a name and a date never meet.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Kind {
    ExactName = 1,
    Affixes = 2,
    NameWithInitial = 3,
    Nickname = 4,
    BirthDate = 5,
    NameWithBirthDate = 6,
    Phone = 7,
    Frequency = 8,
}

/// The keys of a name that equal names have in common: one to four, ascending; none without a name.
///
/// Two names are equal if they share a key: neither case, accents, spacing nor punctuation matter, nor the order
/// of the two names, nor where the given name ends.
#[must_use]
pub fn exact_keys(name: &PersonName) -> Vec<i64> {
    exact(&Folded::new(&name.given), &Folded::new(&name.family))
}

/// All keys that an account is found by, ascending: about eight of the name, and two of a birth date. Each costs a
/// create the insertion of a row; with more of them, no more duplicates were found (`make duplicates`).
#[must_use]
pub fn blocking_keys(identity: &Identity) -> Vec<i64> {
    let given = Folded::new(&identity.name.given);
    let family = Folded::new(&identity.name.family);
    let exact = exact(&given, &family);
    let mut keys = Vec::with_capacity(20);
    keys.extend_from_slice(&exact);
    add_name_keys(&mut keys, &given, &family);
    if let Some(date) = identity.birth_date {
        let year = date.year().to_be_bytes();
        let day = [u8::from(date.month()), date.day()];
        keys.push(hash(Kind::BirthDate, &[&year, &day]));
        // Where a name is common and so is the date: many clients are entered as born on the first of January.
        for name in &exact {
            let name = name.to_be_bytes();
            keys.push(hash(Kind::NameWithBirthDate, &[&name, &year, &day]));
        }
    }
    if let Some(phone) = &identity.phone {
        keys.push(hash(Kind::Phone, &[phone.as_bytes()]));
    }
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Keys that survive typing errors in one name, or one in each, swapped names, nicknames, and parts of double
/// names.
fn add_name_keys(keys: &mut Vec<i64>, given: &Folded, family: &Folded) {
    let (one, other) = (given.latin(), family.latin());
    // In small organizations: what is left of both names.
    for first in [(b'<', prefix(one, AFFIX)), (b'>', suffix(one, AFFIX))] {
        for second in [(b'<', prefix(other, AFFIX)), (b'>', suffix(other, AFFIX))] {
            // Names may be swapped.
            let (low, high) = (first.min(second), first.max(second));
            keys.push(hash(
                Kind::Affixes,
                &[&[low.0], low.1.as_bytes(), &[high.0], high.1.as_bytes()],
            ));
        }
    }
    if given.is_missing() || family.is_missing() {
        return;
    }
    // In large ones: one name whole, and how the other begins.
    for (whole, part) in [(one, other), (other, one)] {
        let initial = prefix(part, 1).as_bytes();
        keys.push(hash(Kind::NameWithInitial, &[whole.as_bytes(), initial]));
    }
    for row in nicknames::rows(given) {
        keys.push(hash(Kind::Nickname, &[row.as_bytes(), other.as_bytes()]));
    }
}

/// What a given or family name is counted by in the frequencies of an organization. `None` for a filler.
pub(super) fn name_hash(name: &Folded) -> Option<i64> {
    (!name.is_missing()).then(|| hash(Kind::Frequency, &[name.plain().as_bytes()]))
}

/// [`exact_keys`] of a folded name.
fn exact(given: &Folded, family: &Folded) -> Vec<i64> {
    let mut keys: Vec<i64> = whole_names(given, family)
        .iter()
        .map(|whole| hash(Kind::ExactName, &[whole]))
        .collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// What two names that are equal have in common at least one of: the letters of both names, which every order and
/// division has in common. One to four; none without a name.
pub(super) fn whole_names(given: &Folded, family: &Folded) -> Vec<Vec<u8>> {
    let whole = |given: &str, family: &str| {
        let mut whole = [given, family].concat().into_bytes();
        let start = least_rotation(&whole);
        whole.rotate_left(start);
        whole
    };
    match (given.is_missing(), family.is_missing()) {
        (true, true) => Vec::new(),
        (false, true) => given.forms().map(|given| whole(given, "")).collect(),
        (true, false) => family.forms().map(|family| whole("", family)).collect(),
        (false, false) => given
            .forms()
            .flat_map(|given| family.forms().map(move |family| whole(given, family)))
            .collect(),
    }
}

/// Where the least of all rotations of a text begins: the same text for `Anna Rossi` and `Rossi Anna`,
/// wherever the given name ends (Duval's way to a minimal rotation).
fn least_rotation(text: &[u8]) -> usize {
    let at = |index: usize| text[index % text.len()];
    let (mut least, mut other, mut length) = (0, 1, 0);
    while least < text.len() && other < text.len() && length < text.len() {
        let (one, two) = (at(least + length), at(other + length));
        if one == two {
            length += 1;
            continue;
        }
        if one > two {
            least += length + 1;
        } else {
            other += length + 1;
        }
        if least == other {
            other += 1;
        }
        length = 0;
    }
    least.min(other)
}

/// The first characters of a name.
fn prefix(name: &str, length: usize) -> &str {
    let end = name.char_indices().nth(length).map(|(index, _)| index);
    &name[..end.unwrap_or(name.len())]
}

/// The last characters of a name.
fn suffix(name: &str, length: usize) -> &str {
    let start = name.char_indices().nth_back(length - 1);
    &name[start.map_or(0, |(index, _)| index)..]
}

/// FNV-1a of 64 bits: it is the same in every version, and needs no secret, since a collision costs one more
/// comparison: whether names are equal is decided by the names.
fn hash(kind: Kind, parts: &[&[u8]]) -> i64 {
    const OFFSET: u64 = 0xCBF2_9CE4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01B3;
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(PRIME);
    let hash = parts.iter().fold(step(OFFSET, kind as u8), |hash, part| {
        // No text in UTF-8 holds this byte.
        part.iter()
            .fold(step(hash, 0xFF), |hash, &byte| step(hash, byte))
    });
    hash.cast_signed()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use time::macros::date;

    use super::*;

    fn name(given: &str, family: &str) -> PersonName {
        PersonName {
            given: given.to_owned(),
            family: family.to_owned(),
        }
    }

    fn identity(given: &str, family: &str) -> Identity {
        Identity {
            name: name(given, family),
            email: None,
            birth_date: None,
            phone: None,
        }
    }

    fn meet(one: &[i64], other: &[i64]) -> bool {
        one.iter().any(|key| other.contains(key))
    }

    #[rstest]
    #[case::accents(name("José María", "García-López"), name("JOSE MARIA", "Garcia Lopez"))]
    #[case::order(name("Nguyễn", "Văn An"), name("Van An", "Nguyen"))]
    #[case::boundary(name("Anna Maria", "Rossi"), name("Anna", "Maria Rossi"))]
    #[case::order_and_boundary(name("Anna Maria", "Rossi"), name("Rossi Anna", "Maria"))]
    #[case::spacing(name("Zoe\u{308}", "de la Cruz"), name("Zoë", "DelaCruz"))]
    #[case::umlauts(name("Jürgen", "Müller"), name("Juergen", "Muller"))]
    #[case::suffix(name("Robert", "Downey"), name("Robert", "Downey Jr."))]
    #[case::greek(name("Γιώργος", "Παπαδάκης"), name("ΓΙΩΡΓΟΣ", "ΠΑΠΑΔΑΚΗΣ"))]
    #[case::fillers(name("Madonna", "-"), name("N/A", "madonna"))]
    #[case::no_plain_form(name("K", "𐞳"), name(" 𐞳-", "K"))]
    fn equal_names_share_a_key(#[case] one: PersonName, #[case] other: PersonName) {
        assert!(meet(&exact_keys(&one), &exact_keys(&other)));
    }

    #[rstest]
    #[case::fillers(name("Madonna", "-"), name("Bjork", "-"))]
    #[case::no_names(name("-", "N/A"), name("-", "N/A"))]
    #[case::ideographs(name("王", "芳"), name("李", "娜"))]
    #[case::written_out(name("Anna", "Mueller"), name("Anna", "Muller"))]
    fn other_names_share_none(#[case] one: PersonName, #[case] other: PersonName) {
        assert!(!meet(&exact_keys(&one), &exact_keys(&other)));
    }

    #[rstest]
    #[case::nickname(identity("Pepe", "Ruiz"), identity("José", "Ruiz"))]
    #[case::nickname_of_two(identity("Sasha", "Popov"), identity("Alexander", "Popov"))]
    #[case::part(identity("Ana", "García"), identity("Ana", "García López"))]
    #[case::scripts(identity("Иван", "Иванов"), identity("Ivan", "Ivanov"))]
    #[case::both_misspelled(identity("Micheal", "Smiht"), identity("Michael", "Smith"))]
    fn similar_names_share_a_blocking_key(#[case] one: Identity, #[case] other: Identity) {
        assert!(meet(&blocking_keys(&one), &blocking_keys(&other)));
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
            name: name("Bo", "Quist"),
            ..one
        };
        assert!(meet(&blocking_keys(&of_date), &blocking_keys(&other)));
        assert!(meet(&blocking_keys(&of_phone), &blocking_keys(&other)));
    }

    /// They are stored: an account is found, and its keys are removed, only while they stay the same.
    #[test]
    fn the_keys_are_those_that_are_stored() {
        // Others need another version.
        assert_eq!(KEYS_VERSION, 1);
        assert_eq!(exact_keys(&name("Ann", "Lee")), [1_261_980_569_651_346_342]);
        let everything = Identity {
            birth_date: Some(date!(1980 - 02 - 03)),
            phone: Some("+4915112345678".to_owned()),
            ..identity("Иван", "Müller-Łuksza")
        };
        let sum = |keys: Vec<i64>| keys.into_iter().fold(0, i64::wrapping_add);
        assert_eq!(sum(blocking_keys(&everything)), 7_667_727_490_582_686_227);
    }

    proptest! {
        #[test]
        fn keys_are_few_and_sorted(given in "\\PC{1,100}", family in "\\PC{1,100}") {
            let keys = exact_keys(&name(&given, &family));
            prop_assert!(keys.len() <= 4);
            let all = blocking_keys(&identity(&given, &family));
            prop_assert!(all.is_sorted() && all.windows(2).all(|pair| pair[0] != pair[1]));
            prop_assert!(keys.iter().all(|key| all.contains(key)));
        }

        #[test]
        fn keys_ignore_case_order_and_boundary(
            // Neither titles, suffixes nor fillers such as `kkk`.
            words in prop::collection::vec("k[a-zà-öø-þ]{0,8}[a-jl-z]", 2..5),
            cut in 1_usize..4,
            turn in 0_usize..4,
        ) {
            let cut = cut.min(words.len() - 1);
            let plain = name(&words[..cut].join(" "), &words[cut..].join(" "));
            let mut turned = words.clone();
            turned.rotate_left(turn % words.len());
            let other = name(&turned[0].to_uppercase(), &turned[1..].join("-"));
            prop_assert!(meet(&exact_keys(&plain), &exact_keys(&other)));
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
            let keys = blocking_keys(&identity(&given, &family));
            prop_assert!(meet(&keys, &blocking_keys(&identity(&edited, &family))));
            let keys = blocking_keys(&identity(&family, &given));
            prop_assert!(meet(&keys, &blocking_keys(&identity(&family, &edited))));
        }
    }
}
