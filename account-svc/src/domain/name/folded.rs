//! A given or family name without what people write differently: case, accents, vowel marks, spacing,
//! punctuation, titles and suffixes, umlauts written out.

use std::ops::Range;

use unicode_normalization::{UnicodeNormalization as _, char::canonical_combining_class};
use usher_runtime::hidden_debug;

#[cfg(test)]
mod tests;

/// What stands behind a family name and is no part of it.
const SUFFIXES: [&str; 16] = [
    "jr", "jnr", "junior", "sr", "snr", "senior", "ii", "iii", "iv", "2nd", "3rd", "phd", "esq",
    "filho", "neto", "hijo",
];

/// Which of these tell members of a family of one name apart: a senior is the first of them. A junior may be the second
/// as well.
const GENERATIONS: [(&str, u8); 14] = [
    ("sr", 1),
    ("snr", 1),
    ("senior", 1),
    ("jr", 2),
    ("jnr", 2),
    ("junior", 2),
    ("ii", 2),
    ("2nd", 2),
    ("filho", 2),
    ("hijo", 2),
    ("iii", 3),
    ("3rd", 3),
    ("neto", 3),
    ("iv", 4),
];

/// What stands before a given name and is no part of it.
const TITLES: [&str; 11] = [
    "dr", "prof", "mr", "mrs", "ms", "miss", "mme", "mlle", "herr", "frau", "sra",
];

/// What people type where they know no name, in folded form.
const FILLERS: [&str; 26] = [
    "unknown",
    "none",
    "null",
    "noname",
    "nofirstname",
    "nolastname",
    "notknown",
    "notgiven",
    "notapplicable",
    "unbekannt",
    "inconnu",
    "inconnue",
    "desconocido",
    "desconocida",
    "sconosciuto",
    "desconhecido",
    "onbekend",
    "nieznany",
    "неизвестно",
    "αγνωστο",
    "不明",
    "fnu",
    "lnu",
    "tbd",
    "tba",
    "anonymous",
];

/// A given or family name, folded. A filler such as `-` or `N/A` is no name and folds to nothing. `Debug` shows nothing
/// of it.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Folded {
    /// The words as one, without accents.
    plain: String,
    /// Where each word ends in `plain`.
    ends: Vec<usize>,
    /// The words as one with umlauts written out, where that differs.
    written_out: Option<String>,
    /// `plain` in Latin letters, where it has others.
    latin: Option<String>,
    /// See [`Folded::generation`].
    generation: Option<u8>,
}

hidden_debug!(Folded);

impl Folded {
    /// Folds a given or family name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let Words {
            plain,
            ends,
            generation,
        } = fold_words(name);
        if is_filler(name, &plain) {
            return Self::default();
        }
        if plain.is_ascii() && name.is_ascii() {
            return Self {
                plain,
                ends,
                generation,
                ..Self::default()
            };
        }
        let written_out = fold_words(&write_out(name)).plain;
        let latin = (!plain.is_ascii()).then(|| {
            let mut latin = any_ascii::any_ascii(&plain);
            latin.retain(|character| character.is_ascii_alphanumeric());
            latin.make_ascii_lowercase();
            latin
        });
        Self {
            written_out: (written_out != plain).then_some(written_out),
            latin: latin.filter(|latin| !latin.is_empty()),
            plain,
            ends,
            generation,
        }
    }

    /// Which member of a family of one name it is, by a suffix: 1 for `Sr.`, 2 for `Jr.` and `II`, and so on.
    #[must_use]
    pub fn generation(&self) -> Option<u8> {
        self.generation
    }

    /// Whether there is no name.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.plain.is_empty()
    }

    /// The name as one word, without accents.
    #[must_use]
    pub fn plain(&self) -> &str {
        &self.plain
    }

    /// The words of [`Folded::plain`].
    pub fn words(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .map(|(start, &end)| &self.plain[start..end])
    }

    /// The ways to write it as one word: without accents, and with umlauts written out where that differs.
    /// Two names are equal if they have one in common. A missing name has none.
    pub fn forms(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.plain())
            .filter(|plain| !plain.is_empty())
            .chain(self.written_out.as_deref())
    }

    /// The name in Latin letters where it can be written so: what names in two scripts meet by.
    #[must_use]
    pub fn latin(&self) -> &str {
        self.latin.as_deref().unwrap_or(&self.plain)
    }

    /// Whether it is written in another script than Latin.
    #[must_use]
    pub fn is_transliterated(&self) -> bool {
        self.latin.is_some()
    }

    /// Equal after normalization. A missing name equals none.
    #[must_use]
    pub fn equals(&self, other: &Self) -> bool {
        self.forms()
            .any(|form| other.forms().any(|other| form == other))
    }
}

fn is_filler(name: &str, folded: &str) -> bool {
    let name = name.trim();
    if ["n/a", "n.a.", "n.a", "k.a.", "#n/a"]
        .iter()
        .any(|filler| name.eq_ignore_ascii_case(filler))
    {
        return true;
    }
    let Some(&first) = folded.as_bytes().first() else {
        return true;
    };
    let is_repeated = folded.len() >= 3 && folded.bytes().all(|byte| byte == first);
    is_repeated || FILLERS.contains(&folded)
}

/// The folded words of a name.
struct Words {
    /// As one.
    plain: String,
    /// Where each ends.
    ends: Vec<usize>,
    generation: Option<u8>,
}

fn fold_words(name: &str) -> Words {
    let mut folded = String::with_capacity(name.len());
    let mut ends = Vec::with_capacity(2);
    let words = name.split(separates_words).filter(|word| !word.is_empty());
    for word in words {
        let start = folded.len();
        fold(word, &mut folded);
        if folded.len() > start {
            ends.push(folded.len());
        }
    }
    let kept = name_itself(&folded, &ends);
    let mut generation = None;
    if kept.len() < ends.len() {
        let mut suffixes = (kept.end..ends.len()).map(|at| &folded[ends[at - 1]..ends[at]]);
        generation = suffixes.find_map(|suffix| {
            let known = GENERATIONS.iter().find(|(known, _)| *known == suffix);
            known.map(|(_, generation)| *generation)
        });
        let start = kept.start.checked_sub(1).map_or(0, |before| ends[before]);
        folded.truncate(ends[kept.end - 1]);
        folded.drain(..start);
        ends = ends[kept].iter().map(|end| end - start).collect();
    }
    Words {
        plain: folded,
        ends,
        generation,
    }
}

fn separates_words(character: char) -> bool {
    character.is_whitespace()
        || matches!(
            character,
            '-' | '.' | ',' | '_' | '/' | '(' | ')' | '"'
            // Hyphens and dashes, and the middle dots between names in Catalan, Chinese and Japanese.
            | '\u{2010}'..='\u{2015}' | '\u{B7}' | '\u{30FB}' | '\u{FF65}'
        )
}

/// Which words are left without titles and suffixes: at least one, if there are any.
fn name_itself(folded: &str, ends: &[usize]) -> Range<usize> {
    let word = |index: usize| {
        let start = index.checked_sub(1).map_or(0, |before| ends[before]);
        &folded[start..ends[index]]
    };
    let (mut start, mut end) = (0, ends.len());
    while end - start > 1 && SUFFIXES.contains(&word(end - 1)) {
        end -= 1;
    }
    while end - start > 1 && TITLES.contains(&word(start)) {
        start += 1;
    }
    start..end
}

/// Umlauts and their like as two letters, as passports write them (ICAO 9303-3, section 6).
fn write_out(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 4);
    for character in name.nfc().flat_map(char::to_lowercase) {
        match character {
            'ä' | 'æ' => text.push_str("ae"),
            'ö' | 'ø' | 'œ' => text.push_str("oe"),
            'ü' => text.push_str("ue"),
            'å' => text.push_str("aa"),
            other => text.push(other),
        }
    }
    text
}

fn fold(word: &str, folded: &mut String) {
    if word.is_ascii() {
        let letters = word.bytes().filter(u8::is_ascii_alphanumeric);
        folded.extend(letters.map(|letter| char::from(letter.to_ascii_lowercase())));
        return;
    }
    let start = folded.len();
    let letters: String = word
        .nfkc()
        .flat_map(char::to_lowercase)
        .nfkd()
        .filter(|&character| !is_left_out(character))
        .collect();
    for character in letters.nfc() {
        match character {
            'ς' => folded.push('σ'),
            'ى' => folded.push('ي'),
            'ة' => folded.push('ه'),
            // Katakana as hiragana, which stands 0x60 before it.
            '\u{30A1}'..='\u{30F6}' => {
                folded.extend(char::from_u32(u32::from(character) - 0x60));
            }
            _ if is_latin(character) => {
                let letters = any_ascii::any_ascii_char(character).bytes();
                let letters = letters.filter(u8::is_ascii_alphanumeric);
                folded.extend(letters.map(|letter| char::from(letter.to_ascii_lowercase())));
            }
            _ if is_sign_of_word(character) => folded.push(character),
            _ => {}
        }
    }
    if folded.len() == start {
        // Letters that have no plain form.
        let letters = word.chars().filter(|character| character.is_alphanumeric());
        folded.extend(letters.flat_map(char::to_lowercase));
    }
}

/// Marks that everyday writing leaves out: accents, the vowels of Hebrew and Arabic, the Indic nukta. The
/// vowel signs of Indic scripts, the vowels of Thai and the voicing of kana are part of the name. By canonical
/// combining class (Unicode, section 4.3).
fn is_left_out(character: char) -> bool {
    matches!(
        canonical_combining_class(character),
        7 | 10..=36 | 200..=240
    ) || matches!(
        character,
        // The Arabic tatweel, and letters such as the Hawaiian okina, which is often an apostrophe.
        '\u{640}' | '\u{2B0}'..='\u{2FF}'
    )
}

/// Letters, digits, and marks that are part of a letter.
fn is_sign_of_word(character: char) -> bool {
    character.is_alphanumeric() || matches!(canonical_combining_class(character), 8 | 9)
}

fn is_latin(character: char) -> bool {
    matches!(
        character,
        '\0'..='\u{2AF}' | '\u{1E00}'..='\u{1EFF}' | '\u{2C60}'..='\u{2C7F}' | '\u{A720}'..='\u{A7FF}'
            | '\u{AB30}'..='\u{AB6F}'
    )
}
