//! The words of a name, written as one: that is what names are compared by.

use usher_runtime::hidden_debug;

use super::spelling::{Spellings, Umlaut};

/// Some words.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Words {
    /// Of all of them, as one.
    pub(super) letters: String,
    /// Where each ends in `letters`.
    pub(super) ends: Vec<usize>,
    /// Those of `letters` that are umlauts, in order.
    umlauts: Vec<Umlaut>,
}

hidden_debug!(Words);

impl Words {
    /// None, with room for a text.
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self {
            letters: String::with_capacity(bytes),
            ends: Vec::with_capacity(2),
            umlauts: Vec::new(),
        }
    }

    /// All of them as one.
    #[must_use]
    pub fn letters(&self) -> &str {
        &self.letters
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.ends.len()
    }

    /// Each of them.
    #[must_use]
    pub fn each(&self) -> impl DoubleEndedIterator<Item = &str> {
        (0..self.ends.len()).map(|index| self.word(index))
    }

    /// The spellings of all of them as one.
    #[must_use]
    pub fn spellings(&self) -> Spellings<'_> {
        Spellings {
            letters: &self.letters,
            umlauts: &self.umlauts,
            start: 0,
        }
    }

    /// The spellings of each of them.
    pub fn each_spellings(&self) -> impl Iterator<Item = Spellings<'_>> {
        (0..self.ends.len()).map(|index| {
            let start = self.start(index);
            let before = |end| self.umlauts.partition_point(|umlaut| umlaut.end <= end);
            Spellings {
                letters: self.word(index),
                umlauts: &self.umlauts[before(start)..before(self.ends[index])],
                start,
            }
        })
    }

    pub(super) fn word(&self, index: usize) -> &str {
        &self.letters[self.start(index)..self.ends[index]]
    }

    fn start(&self, index: usize) -> usize {
        index.checked_sub(1).map_or(0, |before| self.ends[before])
    }

    /// Ends a word after the last letter, if it has any.
    pub(super) fn end(&mut self) {
        if self.letters.len() > self.ends.last().copied().unwrap_or_default() {
            self.ends.push(self.letters.len());
        }
    }

    /// Says that the last letter is an umlaut.
    pub(super) fn mark_umlaut(&mut self, second: u8) {
        let end = self.letters.len();
        self.umlauts.push(Umlaut { end, second });
    }

    /// Keeps the words before `index`, and gives back the others.
    pub(super) fn split_off(&mut self, index: usize) -> Self {
        let start = self.start(index);
        let ends = self.ends.split_off(index);
        let first = self.umlauts.partition_point(|umlaut| umlaut.end <= start);
        let umlauts = self.umlauts.split_off(first).into_iter();
        Self {
            letters: self.letters.split_off(start),
            ends: ends.iter().map(|end| end - start).collect(),
            umlauts: umlauts
                .map(|umlaut| Umlaut {
                    end: umlaut.end - start,
                    ..umlaut
                })
                .collect(),
        }
    }

    /// In Latin letters, if there are others and they can be written so.
    pub(super) fn in_latin(&self) -> Option<Self> {
        if self.letters.is_ascii() {
            return None;
        }
        let mut latin = Self::default();
        for word in self.each() {
            let letters = word
                .chars()
                .flat_map(|letter| any_ascii::any_ascii_char(letter).bytes());
            let letters = letters.filter(u8::is_ascii_alphanumeric);
            latin
                .letters
                .extend(letters.map(|letter| char::from(letter.to_ascii_lowercase())));
            latin.end();
        }
        (!latin.letters.is_empty()).then_some(latin)
    }
}
