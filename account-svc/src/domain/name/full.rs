//! When two full names are equal.

use std::ops::RangeInclusive;

use usher_runtime::hidden_debug;

use super::{
    Folded, PersonName,
    fillers::is_filler_or_initials,
    spelling::{Letter, may_be_of_umlaut, meet},
    words::Words,
};

#[cfg(test)]
mod tests;

/// A full name, folded.
pub struct FoldedName {
    /// Given name.
    pub given: Folded,
    /// Family name.
    pub family: Folded,
}

hidden_debug!(FoldedName);

impl FoldedName {
    /// Folds both names. `N. A.` is no name beside another that is none; beside a name, it is somebody's initials.
    #[must_use]
    pub fn new(name: &PersonName) -> Self {
        let (given, family) = (Folded::new(&name.given), Folded::new(&name.family));
        let is_none = |folded: &Folded, name| folded.is_missing() || is_filler_or_initials(name);
        if is_none(&given, &name.given) && is_none(&family, &name.family) {
            return Self {
                given: Folded::default(),
                family: Folded::default(),
            };
        }
        Self { given, family }
    }

    /// The letters of both names, which every order and division has in common, without titles and suffixes, and with
    /// them. Two names are equal if one of these equals one of the other's. One or two; none without a name.
    #[must_use]
    pub fn wholes(&self) -> Vec<Whole> {
        let (given, family) = (&self.given, &self.family);
        if given.is_missing() && family.is_missing() {
            return Vec::new();
        }
        // `Dr` `Anna Rossi` and `Robert Downey` `Jr.`: the other field has the whole name.
        let (is_in_family, is_in_given) = (given.is_affix_of(family), family.is_affix_of(given));
        let (one, other) = (given.spelled(), family.spelled());
        let mut names = Vec::with_capacity(2);
        if !is_in_family {
            names.push(one);
        }
        if !is_in_given {
            names.push(other);
        }
        let mut wholes = vec![Whole::new(&names)];
        let (titles, suffixes) = given.affixes();
        let (other_titles, other_suffixes) = family.affixes();
        let affixes = [titles, suffixes, other_titles, other_suffixes];
        if is_in_family || is_in_given || affixes.iter().any(|affix| affix.count() > 0) {
            // In whatever order and division, also where only this tells what is a suffix.
            let parts = [titles, one, suffixes, other_titles, other, other_suffixes];
            wholes.push(Whole::new(&parts));
        }
        wholes
    }

    /// Which member of a family of one name it is, by a suffix: 1 for `Sr.`, 2 for `Jr.` and `II`, and so on.
    #[must_use]
    pub fn generation(&self) -> Option<u8> {
        let of = |name: &Folded, other: &Folded| {
            let alone = || name.generation_alone().filter(|_| name.is_affix_of(other));
            name.generation().or_else(alone)
        };
        // The greater of two, for equal names in another order have the same.
        of(&self.family, &self.given).max(of(&self.given, &self.family))
    }
}

/// All letters of a full name, whichever of its words comes first.
pub struct Whole {
    /// The letters that no spelling leaves out, from where their order is least: the same for `Anna Rossi` and
    /// `Rossi Anna`, wherever the given name ends.
    skeleton: Vec<u8>,
    /// All letters, from the same place.
    letters: Vec<Letter>,
}

hidden_debug!(Whole);

/// Most letters of a name of `a` and `e` alone that is compared in each order: its skeleton tells nothing of where it
/// begins.
const MOST_WITHOUT_SKELETON: usize = 32;

impl Whole {
    fn new(parts: &[&Words]) -> Self {
        let length: usize = parts.iter().map(|part| part.letters().len()).sum();
        let mut letters = Vec::with_capacity(length + 4);
        for part in parts {
            part.spellings().append_to(&mut letters);
        }
        // What follows the last letter is the first one.
        let last = kept(&letters, None).last();
        let last = last.map(|index| letters[index].letter);
        let kept: Vec<usize> = kept(&letters, last).collect();
        let mut skeleton: Vec<u8> = kept.iter().map(|&index| letters[index].letter).collect();
        let start = least_rotation(&skeleton);
        skeleton.rotate_left(start);
        letters.rotate_left(kept.get(start).copied().unwrap_or_default());
        Self { skeleton, letters }
    }

    /// What equal names have in common.
    #[must_use]
    pub fn skeleton(&self) -> &[u8] {
        &self.skeleton
    }

    /// How many letters the skeleton lacks, by how the umlauts are spelled: equal names have a number in common.
    #[must_use]
    pub fn letters_left_out(&self) -> RangeInclusive<usize> {
        let optional = self.letters.iter().filter(|letter| letter.is_optional);
        let most = self.letters.len() - self.skeleton.len();
        most - optional.count()..=most
    }

    /// Whether both can be spelled in one way.
    #[must_use]
    pub fn equals(&self, other: &Self) -> bool {
        self.skeleton == other.skeleton
            && (meet(&self.letters, &other.letters)
                || other.rotations().any(|other| meet(&self.letters, &other)))
    }

    /// The letters from the other places where the skeleton begins in the same way: there are none, but in a name that
    /// repeats itself, such as `Bo Boe`.
    fn rotations(&self) -> impl Iterator<Item = Vec<Letter>> {
        let skeleton = &self.skeleton;
        let repeats = |length: &usize| {
            skeleton.len().is_multiple_of(*length)
                && skeleton[*length..] == skeleton[..skeleton.len() - length]
        };
        let starts: Vec<usize> = if skeleton.is_empty() {
            let letters = 1..self.letters.len();
            letters
                .filter(|_| self.letters.len() <= MOST_WITHOUT_SKELETON)
                .collect()
        } else {
            let period = (1..skeleton.len()).find(repeats);
            let period = period.unwrap_or(skeleton.len());
            kept(&self.letters, skeleton.last().copied())
                .step_by(period)
                .skip(1)
                .collect()
        };
        starts.into_iter().map(|start| {
            let mut letters = self.letters.clone();
            letters.rotate_left(start);
            letters
        })
    }
}

/// Which letters are kept in the skeleton, behind `before`.
fn kept(letters: &[Letter], mut before: Option<u8>) -> impl Iterator<Item = usize> {
    letters
        .iter()
        .enumerate()
        .filter_map(move |(index, letter)| {
            if letter.is_optional || may_be_of_umlaut(before, letter.letter) {
                return None;
            }
            before = Some(letter.letter);
            Some(index)
        })
}

/// Where the least of all rotations of a text begins (Duval's way to a minimal rotation).
fn least_rotation(text: &[u8]) -> usize {
    // No index is twice as great as the length: a division for each letter costs more than all else.
    let at = |index: usize| text[index.checked_sub(text.len()).unwrap_or(index)];
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
