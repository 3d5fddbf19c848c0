//! How a given or family name of two entries compares, and how much that speaks for one person.

use super::{Nearness, evidence::Evidence, keys, typing};
use crate::domain::name::{Folded, Spellings, nicknames};

/// How likely the same person's name is written in one way or another.
pub(super) struct Weights {
    /// Equally.
    equal: f64,
    /// With mistakes.
    mistaken: f64,
    /// As a nickname.
    nickname: f64,
    /// In part.
    part: f64,
    /// As another name: after a marriage, or since somebody goes by a middle name.
    other: f64,
}

/// Of given names.
pub(super) const GIVEN: Weights = Weights {
    equal: 0.78,
    mistaken: 0.5,
    nickname: 0.015,
    part: 0.015,
    other: 0.03,
};
/// Of family names.
pub(super) const FAMILY: Weights = Weights {
    equal: 0.78,
    mistaken: 0.5,
    nickname: 0.0,
    part: 0.015,
    other: 0.03,
};

impl Weights {
    /// How the name that is `written` may come from the `meant` one.
    pub fn resemblance(&self, written: &Name, meant: &Name) -> Resemblance {
        let resemblance = |nearness, likelihood, ratio| Resemblance {
            nearness,
            likelihood,
            ratio,
            other: self.other,
        };
        if written.folded.is_missing() || meant.folded.is_missing() {
            return resemblance(Nearness::Missing, 0.0, Some(1.0));
        }
        let initial = written.is_initial(meant).then_some(INITIAL_RATIO);
        if written.folded.equals(&meant.folded) {
            // Also in other letters, such as `Mueller` and `Müller`.
            return resemblance(Nearness::Equal, self.equal, initial);
        }
        let altered = self.altered(written, meant);
        let nearness = if initial.is_some() {
            Nearness::Initial
        } else if altered.nickname > altered.part.max(altered.mistaken) {
            Nearness::Nickname
        } else if altered.part > altered.mistaken {
            Nearness::PartOfName
        } else if altered.mistaken > LEAST_LIKELY {
            written.mistakes(meant)
        } else {
            Nearness::Other
        };
        let likelihood = altered.nickname + altered.part + altered.mistaken;
        resemblance(nearness, likelihood, initial)
    }

    fn altered(&self, written: &Name, meant: &Name) -> Altered {
        Altered {
            nickname: if written.is_nickname(meant) {
                self.nickname / NICKNAMES_OF_A_ROW
            } else {
                0.0
            },
            part: self.part * written.part(meant),
            mistaken: self.mistaken * written.mistaken(meant),
        }
    }
}

/// Likelihoods of the ways in which a name comes to be written otherwise.
struct Altered {
    nickname: f64,
    part: f64,
    mistaken: f64,
}

/// How a written name may come from a meant one, however common they are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resemblance {
    nearness: Nearness,
    /// How likely the name that is meant is written so. 0 if one of them is missing.
    pub likelihood: f64,
    /// The ratio where it does not depend on how common the names are.
    ratio: Option<f64>,
    /// How likely the same person is entered with an altogether other name.
    other: f64,
}

impl Resemblance {
    /// How much likelier the written name is for the person with the meant one than for anyone, of whose names a
    /// `share` is written so. 1 if a name is missing.
    pub fn evidence(self, share: f64) -> Evidence {
        Evidence {
            nearness: self.nearness,
            ratio: self.ratio.unwrap_or(self.likelihood / share + self.other),
        }
    }
}

/// Other names in a row of nicknames.
const NICKNAMES_OF_A_ROW: f64 = 8.0;
/// How much more likely an initial is the same person's than another's: there are some fifteen common ones.
const INITIAL_RATIO: f64 = 10.0;
/// Share of people with a middle name or second family name that is added.
const ADDED_NAME: f64 = 0.01;
/// Likelihood of a transliteration among all ways to write a name in another script.
const TRANSLITERATED: f64 = 0.3;
/// Likelihood that a name is written in other characters of the same sound.
const SAME_SOUND: f64 = 1e-3;
/// Likelihood of mistakes below which a name is another.
const LEAST_LIKELY: f64 = 1e-7;
/// Letters of a short form that begins a name: `Alex` and `Alexander`.
const SHORT_FORM: usize = 3;

/// A given or family name, prepared to be compared with many.
pub(super) struct Name {
    pub folded: Folded,
    /// What its frequency is counted by; none for a filler.
    pub hash: Option<i64>,
    rows: &'static [&'static str],
    letters: Vec<char>,
    latin: Vec<char>,
}

impl Name {
    pub fn new(folded: Folded) -> Self {
        let latin = if folded.is_transliterated() {
            characters(folded.latin())
        } else {
            Vec::new()
        };
        Self {
            rows: nicknames::rows(&folded),
            letters: characters(folded.plain()),
            hash: keys::name_hash(&folded),
            latin,
            folded,
        }
    }

    fn latin(&self) -> &[char] {
        if self.latin.is_empty() {
            &self.letters
        } else {
            &self.latin
        }
    }

    fn mistaken(&self, meant: &Self) -> f64 {
        let in_one_script = self.folded.is_transliterated() == meant.folded.is_transliterated();
        if !in_one_script {
            return TRANSLITERATED * typing::likelihood(self.latin(), meant.latin());
        }
        let likelihood = typing::likelihood(&self.letters, &meant.letters);
        if self.latin() == meant.latin() {
            likelihood.max(SAME_SOUND)
        } else {
            likelihood
        }
    }

    /// By how many mistakes a name differs.
    fn mistakes(&self, meant: &Self) -> Nearness {
        let (written, meant) = (self.latin(), meant.latin());
        match (
            typing::edits(written, meant),
            written.len().min(meant.len()),
        ) {
            (1, 3..) => Nearness::OneEdit,
            (2, 5..) => Nearness::TwoEdits,
            _ => Nearness::CloseSpelling,
        }
    }

    fn is_nickname(&self, of: &Self) -> bool {
        self.rows.iter().any(|row| of.rows.contains(row))
    }

    fn is_initial(&self, of: &Self) -> bool {
        let (short, long) = if self.letters.len() < of.letters.len() {
            (self, of)
        } else {
            (of, self)
        };
        // Ideographs are no initials.
        short.letters.len() == 1
            && short.letters[0] < '\u{2E80}'
            && short.letters.first() == long.letters.first()
    }

    /// How likely a name is written as a part of what is meant, or with more than that.
    fn part(&self, meant: &Self) -> f64 {
        if is_part(&self.folded, &meant.folded) {
            0.5
        } else if is_part(&meant.folded, &self.folded) {
            ADDED_NAME
        } else if self.begins(meant) {
            0.1
        } else if meant.begins(self) {
            0.1 * ADDED_NAME
        } else {
            0.0
        }
    }

    fn begins(&self, long: &Self) -> bool {
        self.letters.len() >= SHORT_FORM && long.letters.starts_with(&self.letters)
    }
}

/// The characters of a text, allocated once.
fn characters(text: &str) -> Vec<char> {
    let mut characters = Vec::with_capacity(text.len());
    characters.extend(text.chars());
    characters
}

/// Whether a name is one or some of the words of another, or all of them in another order: `Zając-Wiśniewska`.
fn is_part(short: &Folded, long: &Folded) -> bool {
    let (short, long) = (short.spelled(), long.spelled());
    let is_word = |of: Spellings<'_>| long.each_spellings().any(|word| word.meet(of));
    long.count() > 1
        && short.letters().len() > 1
        && (short.each_spellings().all(is_word) || is_word(short.spellings()))
}
