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
/// Stand for them behind the letter of an umlaut while a word is folded: of no text (Unicode, section 23.7).
const WRITTEN_WITH_E: char = '\u{FDD0}';
const WRITTEN_WITH_A: char = '\u{FDD1}';

/// A given or family name, folded, without titles and suffixes, unless there is nothing else. A filler such as `-` or
/// `N/A` is no name and folds to nothing. `Debug` shows nothing of it.
#[derive(Clone, Default)]
pub struct Folded {
    /// Without accents.
    plain: Words,
    /// `plain` in Latin letters, where it has others.
    latin: Option<Words>,
    /// What stood before the name and behind it.
    titles: Words,
    suffixes: Words,
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
        Self {
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
        let suffixes = words.split_off(end);
        let titles = if start == 0 {
            Words::default()
        } else {
            let name = words.split_off(start);
            std::mem::replace(&mut words, name)
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

    /// The titles before the name and the suffixes behind it.
    pub(super) fn affixes(&self) -> (&Words, &Words) {
        (&self.titles, &self.suffixes)
    }

    /// The same but for titles, and for suffixes that mean the same.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.plain == other.plain && self.generation == other.generation
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

    /// The words with the spellings of their umlauts.
    #[must_use]
    pub fn spelled(&self) -> &Words {
        &self.plain
    }

    /// The words in Latin letters where they can be written so.
    #[must_use]
    pub fn latin_words(&self) -> &Words {
        self.latin.as_ref().unwrap_or(&self.plain)
    }

    /// The name in Latin letters where it can be written so: what names in two scripts meet by.
    #[must_use]
    pub fn latin(&self) -> &str {
        self.latin_words().letters()
    }

    /// Whether it is written in another script than Latin.
    #[must_use]
    pub fn is_transliterated(&self) -> bool {
        self.latin.is_some()
    }

    /// Equal after normalization. A missing name equals none.
    #[must_use]
    pub fn equals(&self, other: &Self) -> bool {
        !self.is_missing() && self.plain.spellings().meet(other.plain.spellings())
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

/// A suffix with its generation.
fn suffix(word: &str) -> Option<&'static (&'static str, Option<u8>)> {
    SUFFIXES.iter().find(|(suffix, _)| *suffix == word)
}

pub(super) fn fold_words(name: &str) -> Words {
    let mut words = Words::with_capacity(name.len());
    for word in name.split(separates_words) {
        fold(word, &mut words);
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

fn fold(word: &str, folded: &mut Words) {
    if word.is_ascii() {
        let letters = word.bytes().filter(u8::is_ascii_alphanumeric);
        let letters = letters.map(|letter| char::from(letter.to_ascii_lowercase()));
        folded.letters.extend(letters);
        return;
    }
    let start = folded.letters.len();
    for character in without_marks(word).nfc() {
        match character {
            WRITTEN_WITH_E => folded.mark_umlaut(b'e'),
            WRITTEN_WITH_A => folded.mark_umlaut(b'a'),
            'ς' => folded.letters.push('σ'),
            // Arabic and Persian letters that are one.
            'ى' | 'ی' => folded.letters.push('ي'),
            'ک' => folded.letters.push('ك'),
            'ٱ' => folded.letters.push('ا'),
            'ة' => folded.letters.push('ه'),
            // Katakana as hiragana, which stands 0x60 before it.
            '\u{30A1}'..='\u{30F6}' => {
                let hiragana = char::from_u32(u32::from(character) - 0x60);
                folded.letters.extend(hiragana);
            }
            _ if is_latin(character) => {
                let letters = any_ascii::any_ascii_char(character).bytes();
                let letters = letters.filter(u8::is_ascii_alphanumeric);
                let letters = letters.map(|letter| char::from(letter.to_ascii_lowercase()));
                folded.letters.extend(letters);
                if character == 'ø' {
                    folded.mark_umlaut(b'e');
                }
            }
            _ if is_sign_of_word(character) => folded.letters.push(character),
            _ => {}
        }
    }
    if folded.letters.len() == start {
        // Letters that have no plain form.
        let letters = word.chars().filter(|character| character.is_alphanumeric());
        folded.letters.extend(letters.flat_map(char::to_lowercase));
    }
}

/// The small letters of a word without the marks that are left out, but for those of umlauts.
fn without_marks(word: &str) -> String {
    // A letter comes before its marks, of which there may be more.
    let mut letter = '\0';
    let letters = word.nfkc().flat_map(char::to_lowercase).nfkd();
    let is_kept = |character: char| !is_left_out(character) && !is_invisible(character);
    letters
        .filter_map(|character| {
            let mark = match (letter, character) {
                ('a' | 'o' | 'u', DIAERESIS) => Some(WRITTEN_WITH_E),
                ('a', RING_ABOVE) => Some(WRITTEN_WITH_A),
                (_, WRITTEN_WITH_E | WRITTEN_WITH_A) => return None,
                _ => None,
            };
            if mark.is_some() {
                letter = '\0';
            } else if canonical_combining_class(character) == 0 && !is_invisible(character) {
                letter = character;
            }
            mark.or_else(|| is_kept(character).then_some(character))
        })
        .collect()
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
