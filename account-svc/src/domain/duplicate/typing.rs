//! How a name comes to be written otherwise than it was meant: by slips of the hand, the ear or the eye.
//!
//! A noisy channel: each letter is left out, doubled, mistaken or swapped with the next one with some probability,
//! and the ways in which one name can become the other add up. Letters that are near on a keyboard, sound alike
//! or look alike are mistaken more often.

use std::sync::LazyLock;

/// Letters of a name that are compared: the time that a comparison takes grows with their square, and a hundred
/// characters can stand for two thousand letters.
const LENGTH: usize = 32;
/// Most letters that are missing or too many.
const SHIFT: usize = 3;

/// Most letters of one name that the other may lack.
const OTHER_LETTERS: u32 = 3;

/// Probability that a letter is left out.
const OMITTED: f64 = 0.03;
/// Probability that a letter follows that was not meant.
const ADDED: f64 = 0.025;
/// Probability that another letter stands for it.
const MISTAKEN: f64 = 0.035;
/// Probability that two letters are swapped.
const SWAPPED: f64 = 0.015;
/// Probability that letters are written as others that sound or look like them.
const REWRITTEN: f64 = 0.01;
/// Probability that a letter is written as it was meant.
const KEPT: f64 = 1.0 - OMITTED - ADDED - MISTAKEN - SWAPPED - REWRITTEN;

/// Neighbours on the keyboards of most countries, by row.
const KEYBOARD: [&str; 3] = ["qwertyuiop", "asdfghjkl", "zxcvbnm"];

/// Letters that sound or look alike.
const ALIKE: [&str; 11] = [
    "aeiou", "ckq", "szx", "iyj", "fvw", "dt", "bp", "mn", "gj", "il", "uv",
];

/// Letters that sound or look like others.
const REWRITINGS: [(&str, &str); 30] = [
    ("ph", "f"),
    ("ck", "k"),
    ("ck", "c"),
    ("ch", "k"),
    ("ch", "c"),
    ("th", "t"),
    ("gh", "g"),
    ("sh", "s"),
    ("sch", "sh"),
    ("tz", "z"),
    ("ts", "z"),
    ("ks", "x"),
    ("qu", "kw"),
    ("cz", "ch"),
    ("tsch", "ch"),
    ("ie", "y"),
    ("ie", "ee"),
    ("ie", "i"),
    ("ey", "y"),
    ("ee", "y"),
    ("ea", "ee"),
    ("ei", "ai"),
    ("ey", "ei"),
    ("ay", "ai"),
    ("ou", "u"),
    ("oo", "u"),
    ("ow", "ou"),
    ("rn", "m"),
    ("cl", "d"),
    ("vv", "w"),
];

/// How likely it is that somebody who makes mistakes writes `written` where `meant` is meant; above 0 for names of
/// up to three letters more or less.
pub(super) fn likelihood(written: &[char], meant: &[char]) -> f64 {
    let (written, meant) = (beginning(written), beginning(meant));
    if written.len().abs_diff(meant.len()) > SHIFT || are_of_other_letters(written, meant) {
        return 0.0;
    }
    // By how much is written of how much of what was meant.
    let mut cells = [[0.0; LENGTH + 1]; LENGTH + 1];
    cells[0][0] = 1.0;
    for m in 0..=meant.len() {
        for w in m.saturating_sub(SHIFT)..=written.len().min(m + SHIFT) {
            let mut sum: f64 = cells[m][w];
            if w > 0 {
                sum += cells[m][w - 1] * added(written, w - 1);
            }
            if m > 0 {
                sum += cells[m - 1][w] * omitted(meant, m - 1);
            }
            if m > 0 && w > 0 {
                sum += cells[m - 1][w - 1] * instead(written[w - 1], meant[m - 1]);
            }
            if m > 1 && w > 1 && is_swapped(&written[w - 2..w], &meant[m - 2..m]) {
                sum += cells[m - 2][w - 2] * SWAPPED;
            }
            cells[m][w] = sum;
            if sum > 0.0 {
                for (meant_length, written_length) in rewritings(&written[w..], &meant[m..]) {
                    cells[m + meant_length][w + written_length] += sum * REWRITTEN;
                }
            }
        }
    }
    cells[meant.len()][written.len()]
}

/// By how many letters added, left out, mistaken or swapped with the next one the beginnings of two names differ.
pub(super) fn edits(written: &[char], meant: &[char]) -> usize {
    strsim::generic_damerau_levenshtein(beginning(written), beginning(meant))
}

fn beginning(name: &[char]) -> &[char] {
    &name[..name.len().min(LENGTH)]
}

/// Whether more letters of one name than mistakes can explain are not in the other: so for most names.
fn are_of_other_letters(written: &[char], meant: &[char]) -> bool {
    let letters = |name: &[char]| {
        name.iter()
            .fold(0_u64, |set, &letter| set | 1 << (u32::from(letter) % 64))
    };
    let (written, meant) = (letters(written), letters(meant));
    (written & !meant).count_ones() > OTHER_LETTERS
        || (meant & !written).count_ones() > OTHER_LETTERS
}

/// How likely a letter was added: often it repeats its neighbour.
fn added(written: &[char], at: usize) -> f64 {
    let repeats = at > 0 && written[at - 1] == written[at];
    ADDED
        * if repeats {
            0.4
        } else {
            0.6 / alphabet(written[at])
        }
}

/// How likely a letter was left out: more often if it repeats its neighbour.
fn omitted(meant: &[char], at: usize) -> f64 {
    let repeats = at > 0 && meant[at - 1] == meant[at];
    OMITTED * if repeats { 3.0 } else { 1.0 }
}

/// How likely one letter is written where another is meant.
fn instead(written: char, meant: char) -> f64 {
    if written == meant {
        return KEPT;
    }
    match (index(written), index(meant)) {
        (Some(written), Some(meant)) => LETTERS.instead[meant][written],
        _ => MISTAKEN * 0.4 / alphabet(written),
    }
}

fn is_swapped(written: &[char], meant: &[char]) -> bool {
    meant[0] != meant[1] && written[0] == meant[1] && written[1] == meant[0]
}

/// Letters of the alphabet that a letter is of.
fn alphabet(letter: char) -> f64 {
    if letter < '\u{2E80}' { 26.0 } else { 2_000.0 }
}

/// How many letters of `meant` are rewritten as how many of `written`, where both begin.
fn rewritings(written: &[char], meant: &[char]) -> impl Iterator<Item = (usize, usize)> {
    let first = |letters: &[char]| letters.first().and_then(|&letter| index(letter));
    let possible = match (first(written), first(meant)) {
        (Some(written), Some(meant)) => LETTERS.rewritten[meant][written].as_slice(),
        _ => &[],
    };
    let starts = |letters: &[char], with: &str| {
        letters.len() >= with.len() && with.chars().zip(letters).all(|(one, &other)| one == other)
    };
    possible
        .iter()
        .filter(move |(from, to)| starts(meant, from) && starts(written, to))
        .map(|(from, to)| (from.len(), to.len()))
}

/// What the letters from a to z are taken for.
struct Letters {
    /// How likely the second is written for the first.
    instead: [[f64; 26]; 26],
    /// What begins with the first, and is written as what begins with the second.
    rewritten: [[Vec<(&'static str, &'static str)>; 26]; 26],
}

static LETTERS: LazyLock<Letters> = LazyLock::new(|| {
    let letters = || (b'a'..=b'z').map(char::from).enumerate();
    let mut instead = [[0.0; 26]; 26];
    for (meant, one) in letters() {
        for (written, other) in letters() {
            instead[meant][written] = MISTAKEN
                * if are_neighbours(one, other) || are_alike(one, other) {
                    0.08
                } else {
                    0.4 / alphabet(other)
                };
        }
    }
    let mut rewritten = std::array::from_fn(|_| std::array::from_fn(|_| Vec::new()));
    for (one, other) in REWRITINGS {
        for (from, to) in [(one, other), (other, one)] {
            let first = |text: &str| text.chars().next().and_then(index);
            if let (Some(meant), Some(written)) = (first(from), first(to)) {
                rewritten[meant][written].push((from, to));
            }
        }
    }
    Letters { instead, rewritten }
});

/// The place in the alphabet of a letter from a to z.
fn index(letter: char) -> Option<usize> {
    letter
        .is_ascii_lowercase()
        .then(|| usize::from(u8::try_from(letter).unwrap_or(b'a') - b'a'))
}

fn are_neighbours(one: char, other: char) -> bool {
    KEYBOARD.iter().any(|row| {
        let column = |letter| row.chars().position(|key| key == letter);
        matches!((column(one), column(other)), (Some(one), Some(other)) if one.abs_diff(other) == 1)
    })
}

fn are_alike(one: char, other: char) -> bool {
    ALIKE
        .iter()
        .any(|group| group.contains(one) && group.contains(other))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn likelihood_of(written: &str, meant: &str) -> f64 {
        let letters = |name: &str| name.chars().collect::<Vec<char>>();
        likelihood(&letters(written), &letters(meant))
    }

    #[rstest]
    #[case::omitted("smth", "smath")]
    #[case::swapped("smiht", "smoth")]
    #[case::neighbour("smitj", "smitp")]
    #[case::sound("filip", "xilip")]
    #[case::look("bumett", "buqett")]
    #[case::doubled("smithh", "smithx")]
    fn likely_mistakes(#[case] likely: &str, #[case] unlikely: &str) {
        let meant = match likely {
            "filip" => "philip",
            "bumett" => "burnett",
            _ => "smith",
        };
        assert!(likelihood_of(likely, meant) > likelihood_of(unlikely, meant));
        assert!(likelihood_of(likely, meant) < likelihood_of(meant, meant));
    }

    #[test]
    fn other_names_are_no_mistakes() {
        assert!(likelihood_of("anna", "robert") < 1e-9);
        assert!(likelihood_of("", "anna") < 1e-9);
        assert!(likelihood_of(&"ab".repeat(60), &"ba".repeat(60)).is_finite());
    }
}
