//! A given or family name without what people write differently: case, accents, vowel marks, spacing,
//! punctuation, titles and suffixes, umlauts written out.

use std::borrow::Cow;

use unicode_normalization::{UnicodeNormalization as _, char::canonical_combining_class};
use usher_runtime::hidden_debug;

use super::{fillers::is_filler, words::Words};
use crate::domain::text::is_invisible;

#[cfg(test)]
mod tests;

/// What stands behind a family name and is no part of it. With a number, it tells members of a family of one name
/// apart: a senior is the first of them, and a junior the second.
const SUFFIXES: [(&str, Option<u8>); 16] = [
    ("sr", Some(1)),
    ("snr", Some(1)),
    ("senior", Some(1)),
    ("jr", Some(2)),
    ("jnr", Some(2)),
    ("junior", Some(2)),
    ("ii", Some(2)),
    ("2nd", Some(2)),
    ("filho", Some(2)),
    ("hijo", Some(2)),
    ("iii", Some(3)),
    ("3rd", Some(3)),
    ("neto", Some(3)),
    ("iv", Some(4)),
    ("phd", None),
    ("esq", None),
];

/// What stands before a given name and is no part of it.
const TITLES: [&str; 11] = [
    "dr", "prof", "mr", "mrs", "ms", "miss", "mme", "mlle", "herr", "frau", "sra",
];

/// Most characters of a name that are compared, when those that stand for several are written out: one character may
/// stand for a whole sentence, and a duplicate check compares a hundred names.
const MOST_CHARACTERS: usize = 128;

const DIAERESIS: char = '\u{308}';
const RING_ABOVE: char = '\u{30A}';

/// A given or family name, folded, without titles and suffixes, unless there is nothing else. A filler such as `-` or
/// `N/A` is no name and folds to nothing. `Debug` shows nothing of it.
#[derive(Clone, Default)]
pub struct Folded {
    /// Without accents.
    plain: Words,
    /// With umlauts written out, where that differs: in each word or in some.
    written_out: Vec<Words>,
    /// `plain` in Latin letters, where it has others.
    latin: Option<Words>,
    /// What stood before the name and behind it, as one.
    titles: String,
    suffixes: String,
    /// See [`Folded::generation`].
    generation: Option<u8>,
}

hidden_debug!(Folded);

impl Folded {
    /// Folds a given or family name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let name = &*bounded(name);
        let folded = Self::without_affixes(fold_words(name));
        // `III` is none.
        if suffix(folded.plain()).is_none() && is_filler(name, folded.plain()) {
            return Self::default();
        }
        if name.is_ascii() {
            return folded;
        }
        let written_out = Self::without_affixes(fold_words(&write_out(name))).plain;
        Self {
            written_out: written_out_forms(&folded.plain, written_out),
            latin: folded.plain.in_latin(),
            ..folded
        }
    }

    /// The words that are left without titles and suffixes: at least one, if there are any.
    fn without_affixes(mut words: Words) -> Self {
        let (mut start, mut end) = (0, words.count());
        let mut generation = None;
        while end - start > 1
            && let Some((_, of_suffix)) = suffix(words.word(end - 1))
        {
            generation = of_suffix.or(generation);
            end -= 1;
        }
        while end - start > 1 && TITLES.contains(&words.word(start)) {
            start += 1;
        }
        let suffixes = words.split_off(end).letters;
        let titles = if start == 0 {
            String::new()
        } else {
            let name = words.split_off(start);
            std::mem::replace(&mut words, name).letters
        };
        Self {
            plain: words,
            titles,
            suffixes,
            generation,
            ..Self::default()
        }
    }

    /// Which member of a family of one name it is, by a suffix: 1 for `Sr.`, 2 for `Jr.` and `II`, and so on.
    #[must_use]
    pub(super) fn generation(&self) -> Option<u8> {
        self.generation
    }

    /// The generation, if this is a suffix and nothing else.
    pub(super) fn generation_alone(&self) -> Option<u8> {
        suffix(self.plain())?.1
    }

    /// Whether this is a title or suffix and nothing else, and the `other` name may be a whole one: `Robert Downey`
    /// `Jr.`
    pub(super) fn is_affix_of(&self, other: &Self) -> bool {
        other.plain.count() > 1
            && (suffix(self.plain()).is_some() || TITLES.contains(&self.plain()))
    }

    /// The titles before the name and the suffixes behind it, each as one.
    pub(super) fn affixes(&self) -> (&str, &str) {
        (&self.titles, &self.suffixes)
    }

    /// The same but for titles, and for suffixes that mean the same.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.plain == other.plain
            && self.written_out == other.written_out
            && self.generation == other.generation
    }

    /// Whether there is no name.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.plain().is_empty()
    }

    /// The name as one word, without accents.
    #[must_use]
    pub fn plain(&self) -> &str {
        self.plain.letters()
    }

    /// The words of the name, without accents.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.plain.each()
    }

    /// The ways to write it: without accents, and with umlauts written out where that differs. Two names are equal if
    /// they have the letters of one in common. A missing name has none.
    pub fn forms(&self) -> impl Iterator<Item = &Words> {
        let plain = (!self.is_missing()).then_some(&self.plain);
        plain.into_iter().chain(&self.written_out)
    }

    /// [`Folded::forms`] in Latin letters where they can be written so.
    pub fn latin_forms(&self) -> impl Iterator<Item = &Words> {
        let plain = (!self.is_missing()).then_some(self.latin.as_ref().unwrap_or(&self.plain));
        plain.into_iter().chain(&self.written_out)
    }

    /// The name in Latin letters where it can be written so: what names in two scripts meet by.
    #[must_use]
    pub fn latin(&self) -> &str {
        self.latin.as_ref().unwrap_or(&self.plain).letters()
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
            .any(|form| other.forms().any(|other| form.letters == other.letters))
    }
}

/// A name without the characters that are too many.
fn bounded(name: &str) -> Cow<'_, str> {
    if name.is_ascii() || name.nfkc().nth(MOST_CHARACTERS).is_none() {
        Cow::Borrowed(name)
    } else {
        name.nfkc().take(MOST_CHARACTERS).collect()
    }
}

/// The ways to write a name with umlauts, but for the `plain` one: written out in each word, or in one of two, as in
/// `Muller-Luedenscheidt`. Each further word would double them.
fn written_out_forms(plain: &Words, written_out: Words) -> Vec<Words> {
    let mut forms = Vec::new();
    let words = || std::iter::zip(plain.each(), written_out.each()).enumerate();
    let differ: Vec<_> = words()
        .filter(|(_, (plain, written_out))| plain != written_out)
        .map(|(index, _)| index)
        .collect();
    if let [first, second] = differ[..]
        && plain.count() == written_out.count()
    {
        forms.extend([first, second].map(|written| {
            Words::of(words().map(
                |(index, (plain, out))| {
                    if index == written { out } else { plain }
                },
            ))
        }));
    }
    if written_out != *plain {
        forms.push(written_out);
    }
    forms
}

/// A suffix with its generation.
fn suffix(word: &str) -> Option<&'static (&'static str, Option<u8>)> {
    SUFFIXES.iter().find(|(suffix, _)| *suffix == word)
}

pub(super) fn fold_words(name: &str) -> Words {
    let mut words = Words {
        letters: String::with_capacity(name.len()),
        ends: Vec::with_capacity(2),
    };
    for word in name.split(separates_words) {
        fold(word, &mut words.letters);
        words.end();
    }
    words
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

/// Umlauts and their like as two letters, as passports write them (ICAO 9303-3, section 6).
fn write_out(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 4);
    // A letter comes before its marks, of which there may be more.
    let mut letter = '\0';
    for character in name.nfd().flat_map(char::to_lowercase).nfd() {
        match (letter, character) {
            ('a' | 'o' | 'u', DIAERESIS) => text.push('e'),
            ('a', RING_ABOVE) => text.push('a'),
            (_, 'æ') => text.push_str("ae"),
            (_, 'ø' | 'œ') => text.push_str("oe"),
            (_, other) => text.push(other),
        }
        if canonical_combining_class(character) == 0 {
            // Also of full width.
            letter = std::iter::once(character)
                .nfkd()
                .next()
                .unwrap_or(character);
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
        .filter(|&character| !is_left_out(character) && !is_invisible(character))
        .collect();
    for character in letters.nfc() {
        match character {
            'ς' => folded.push('σ'),
            // Arabic and Persian letters that are one.
            'ى' | 'ی' => folded.push('ي'),
            'ک' => folded.push('ك'),
            'ٱ' => folded.push('ا'),
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
