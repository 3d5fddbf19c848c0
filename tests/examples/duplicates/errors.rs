//! What people get wrong when they enter somebody a second time.

use account_svc::domain::{duplicate::Identity, name::PersonName};
use time::{Date, Month};
use usher_tests::random::Random;

use crate::people::People;

/// What became of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum NameError {
    None,
    Typing,
    Keyboard,
    TwoErrors,
    BothNames,
    Phonetic,
    LookAlike,
    Nickname,
    Swapped,
    Accents,
    NewFamilyName,
    PartOfName,
    Initial,
    /// A title or suffix is added, in its name or as all that stands in one of the fields.
    SuffixOrTitle,
    /// A word is entered with the other name.
    Boundary,
    /// Umlauts are written out, and the other name is a nickname or misspelled.
    WrittenOutAndMore,
}

/// How often each happens.
pub(crate) const NAME_ERRORS: [(NameError, usize); 16] = [
    (NameError::None, 25),
    (NameError::Typing, 22),
    (NameError::Keyboard, 6),
    (NameError::TwoErrors, 5),
    (NameError::BothNames, 5),
    (NameError::Phonetic, 9),
    (NameError::LookAlike, 4),
    (NameError::Nickname, 6),
    (NameError::Swapped, 4),
    (NameError::Accents, 5),
    (NameError::NewFamilyName, 2),
    (NameError::PartOfName, 5),
    (NameError::Initial, 2),
    (NameError::SuffixOrTitle, 2),
    (NameError::Boundary, 2),
    (NameError::WrittenOutAndMore, 2),
];

/// What became of a birth date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum DateError {
    None,
    Missing,
    DayMonthSwapped,
    OneDigit,
    AnotherYear,
    Another,
}

/// How often each happens.
pub(crate) const DATE_ERRORS: [(DateError, usize); 6] = [
    (DateError::None, 84),
    (DateError::Missing, 5),
    (DateError::DayMonthSwapped, 2),
    (DateError::OneDigit, 4),
    (DateError::AnotherYear, 3),
    (DateError::Another, 2),
];

/// Letters that are written as others that sound like them.
const SOUNDS: [(&str, &str); 24] = [
    ("ph", "f"),
    ("ck", "k"),
    ("c", "k"),
    ("th", "t"),
    ("ie", "y"),
    ("ei", "ai"),
    ("ai", "ay"),
    ("ee", "ea"),
    ("ou", "u"),
    ("oo", "u"),
    ("s", "z"),
    ("v", "w"),
    ("sch", "sh"),
    ("x", "ks"),
    ("ll", "l"),
    ("nn", "n"),
    ("tt", "t"),
    ("mm", "m"),
    ("dt", "t"),
    ("son", "sen"),
    ("er", "ar"),
    ("el", "le"),
    ("i", "y"),
    ("sz", "sh"),
];

/// Letters that are read as others that look like them.
const LOOKS: [(&str, &str); 14] = [
    ("rn", "m"),
    ("cl", "d"),
    ("vv", "w"),
    ("l", "i"),
    ("i", "l"),
    ("l", "1"),
    ("o", "0"),
    ("e", "c"),
    ("h", "b"),
    ("u", "v"),
    ("n", "u"),
    ("a", "o"),
    ("t", "f"),
    ("g", "q"),
];

/// Letters side by side on a keyboard.
const KEYBOARD: [&str; 3] = ["qwertyuiop", "asdfghjkl", "zxcvbnm"];

/// Enters a person a second time. Where an error is impossible (no nickname, nothing to leave out), a typing error
/// takes its place.
pub(crate) fn enter_again(
    person: &Identity,
    people: &People,
    random: &mut Random,
) -> (Identity, NameError, DateError) {
    let PersonName { given, family } = &person.name;
    let error = *random.weighted(&NAME_ERRORS);
    let (error, name) = match altered(error, given, family, people, random) {
        Some((new_given, new_family)) => (error, (new_given, new_family)),
        None => (
            NameError::Typing,
            in_one_name(given, family, random, typing),
        ),
    };
    let (date_error, birth_date) = match person.birth_date {
        Some(date) => another_date(date, random),
        None => (DateError::Missing, None),
    };
    let entered = Identity {
        name: PersonName {
            given: name.0,
            family: name.1,
        },
        birth_date,
        ..person.clone()
    };
    (entered, error, date_error)
}

fn altered(
    error: NameError,
    given: &str,
    family: &str,
    people: &People,
    random: &mut Random,
) -> Option<(String, String)> {
    let whole = (given.to_owned(), family.to_owned());
    let altered = match error {
        NameError::None => return Some(whole),
        NameError::Typing => in_one_name(given, family, random, typing),
        NameError::Keyboard => in_one_name(given, family, random, keyboard),
        NameError::TwoErrors => in_one_name(given, family, random, |name, random| {
            let once = typing(name, random);
            typing(&once, random)
        }),
        NameError::BothNames => (typing(given, random), typing(family, random)),
        NameError::Phonetic => in_one_name(given, family, random, |name, random| {
            replaced(name, &SOUNDS, random)
        }),
        NameError::LookAlike => in_one_name(given, family, random, |name, random| {
            replaced(name, &LOOKS, random)
        }),
        NameError::Nickname => (nickname(given, people, random)?, family.to_owned()),
        NameError::Swapped => (family.to_owned(), given.to_owned()),
        NameError::Accents => (without_accents(given), without_accents(family)),
        NameError::NewFamilyName => {
            let new = people.family_name(random);
            let family = if random.happens(40.0) {
                format!("{family}-{new}")
            } else {
                new
            };
            (given.to_owned(), family)
        }
        NameError::PartOfName => match (part(family, random), part(given, random)) {
            (Some(family), _) => (given.to_owned(), family),
            (None, Some(given)) => (given, family.to_owned()),
            (None, None) => return None,
        },
        NameError::Initial => (
            given.chars().take(1).chain(['.']).collect(),
            family.to_owned(),
        ),
        NameError::SuffixOrTitle => with_suffix_or_title(given, family, random),
        NameError::Boundary => boundary_moved(given, family)?,
        NameError::WrittenOutAndMore => written_out_and_more(given, family, people, random)?,
    };
    (altered != whole).then_some(altered)
}

fn in_one_name(
    given: &str,
    family: &str,
    random: &mut Random,
    error: impl Fn(&str, &mut Random) -> String,
) -> (String, String) {
    if random.happens(50.0) {
        (error(given, random), family.to_owned())
    } else {
        (given.to_owned(), error(family, random))
    }
}

/// One letter is left out, added, another, or swapped with the next one.
fn typing(name: &str, random: &mut Random) -> String {
    let mut letters: Vec<char> = name.chars().collect();
    let at = random.below(letters.len());
    // Of the same script.
    let other = if letters[at] >= 'а' {
        *random.one_of(&['а', 'е', 'и', 'о', 'р', 'с', 'т', 'н', 'в', 'л'])
    } else {
        char::from(*random.one_of(b"abcdefghijklmnopqrstuvwxyz"))
    };
    match random.below(10) {
        0..3 if letters.len() > 2 => {
            letters.remove(at);
        }
        3..5 => letters.insert(at, other),
        5 => letters.insert(at, letters[at]),
        6..8 if at + 1 < letters.len() => letters.swap(at, at + 1),
        _ => letters[at] = other,
    }
    letters.into_iter().collect()
}

/// A letter becomes its neighbour on the keyboard.
fn keyboard(name: &str, random: &mut Random) -> String {
    let mut letters: Vec<char> = name.chars().collect();
    let at = random.below(letters.len());
    let letter = letters[at].to_ascii_lowercase();
    for row in KEYBOARD {
        if let Some(column) = row.chars().position(|key| key == letter) {
            let next = if column == 0 { 1 } else { column - 1 };
            letters[at] = row.chars().nth(next).unwrap_or(letter);
        }
    }
    letters.into_iter().collect()
}

/// Some letters become others, either way.
fn replaced(name: &str, by: &[(&str, &str)], random: &mut Random) -> String {
    let name = name.to_lowercase();
    let start = random.below(by.len());
    for step in 0..by.len() {
        let (one, other) = by[(start + step) % by.len()];
        let (from, to) = if random.happens(50.0) {
            (one, other)
        } else {
            (other, one)
        };
        if name.contains(from) {
            return name.replacen(from, to, 1);
        }
    }
    typing(&name, random)
}

fn nickname(given: &str, people: &People, random: &mut Random) -> Option<String> {
    let fitting: Vec<&str> = people
        .nicknames
        .iter()
        .filter_map(|&(formal, short)| match given {
            _ if given == formal => Some(short),
            _ if given == short => Some(formal),
            _ => None,
        })
        .collect();
    (!fitting.is_empty()).then(|| (*random.one_of(&fitting)).to_owned())
}

/// Accents are left out, umlauts written out.
fn without_accents(name: &str) -> String {
    name.chars()
        .map(|letter| match letter {
            'ä' => "ae".to_owned(),
            'ö' => "oe".to_owned(),
            'ü' => "ue".to_owned(),
            'ß' => "ss".to_owned(),
            'á' | 'à' | 'ą' => "a".to_owned(),
            'é' | 'è' | 'ê' | 'ę' => "e".to_owned(),
            'í' | 'î' => "i".to_owned(),
            'ó' | 'ò' | 'ô' => "o".to_owned(),
            'ú' => "u".to_owned(),
            'ñ' | 'ń' => "n".to_owned(),
            'ł' => "l".to_owned(),
            'Ł' => "L".to_owned(),
            'ś' => "s".to_owned(),
            'ź' | 'ż' => "z".to_owned(),
            'ç' => "c".to_owned(),
            'Á' => "A".to_owned(),
            'Í' => "I".to_owned(),
            'É' => "E".to_owned(),
            'ё' => "е".to_owned(),
            other => other.to_string(),
        })
        .collect()
}

fn with_suffix_or_title(given: &str, family: &str, random: &mut Random) -> (String, String) {
    let suffix = random.one_of(&["Jr.", "Sr.", "III", "Filho", "Neto", "PhD"]);
    let title = random.one_of(&["Dr.", "Prof. Dr.", "Mrs", "Herr", "Frau"]);
    match random.below(4) {
        0 => (given.to_owned(), format!("{family} {suffix}")),
        1 => (format!("{given} {family}"), (*suffix).to_owned()),
        2 => (format!("{title} {given}"), family.to_owned()),
        _ => ((*title).to_owned(), format!("{given} {family}")),
    }
}

/// `Anna` `Maria Rossi` for `Anna Maria` `Rossi`, or the other way round.
fn boundary_moved(given: &str, family: &str) -> Option<(String, String)> {
    if let Some((given, middle)) = given.rsplit_once(' ') {
        return Some((given.to_owned(), format!("{middle} {family}")));
    }
    let (middle, family) = family.split_once(' ')?;
    Some((format!("{given} {middle}"), family.to_owned()))
}

fn written_out_and_more(
    given: &str,
    family: &str,
    people: &People,
    random: &mut Random,
) -> Option<(String, String)> {
    let (written_given, written_family) = (without_accents(given), without_accents(family));
    let is_longer = |name: &str, than: &str| name.chars().count() > than.chars().count();
    if is_longer(&written_family, family) {
        let given = nickname(given, people, random).unwrap_or_else(|| typing(given, random));
        return Some((given, written_family));
    }
    is_longer(&written_given, given).then(|| (written_given, typing(family, random)))
}

/// One of several names.
fn part(name: &str, random: &mut Random) -> Option<String> {
    let parts: Vec<&str> = name
        .split([' ', '-'])
        .filter(|part| part.len() > 2)
        .collect();
    (parts.len() > 1).then(|| (*random.one_of(&parts)).to_owned())
}

fn another_date(date: Date, random: &mut Random) -> (DateError, Option<Date>) {
    let error = *random.weighted(&DATE_ERRORS);
    let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
    let of = |year, month, day| {
        let month = Month::try_from(month).ok()?;
        Date::from_calendar_date(year, month, day).ok()
    };
    let shift = i32::try_from(1 + random.below(3)).unwrap_or(1);
    let other = match error {
        DateError::None => return (error, Some(date)),
        DateError::Missing => return (error, None),
        DateError::DayMonthSwapped => of(year, day, month),
        DateError::OneDigit => match random.below(3) {
            0 => of(year + 10 * shift, month, day),
            1 => of(year, month, day + 10),
            _ => of(year, month, if day % 10 == 9 { day - 1 } else { day + 1 }),
        },
        DateError::AnotherYear => of(year - shift, month, day),
        DateError::Another => of(year - 7, 1 + month % 12, 1 + day % 28),
    };
    match other {
        Some(other) if other != date => (error, Some(other)),
        _ => (DateError::None, Some(date)),
    }
}
