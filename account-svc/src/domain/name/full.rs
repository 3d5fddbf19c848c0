//! When two full names are equal.

use usher_runtime::hidden_debug;

use super::{Folded, PersonName, words::Words};

/// A full name, folded.
pub struct FoldedName {
    /// Given name.
    pub given: Folded,
    /// Family name.
    pub family: Folded,
}

hidden_debug!(FoldedName);

impl FoldedName {
    /// Folds both names.
    #[must_use]
    pub fn new(name: &PersonName) -> Self {
        Self {
            given: Folded::new(&name.given),
            family: Folded::new(&name.family),
        }
    }

    /// What two names that are equal have in common at least one of: the letters of both names, which every order and
    /// division has in common, without titles and suffixes, and with them. One to 32, nearly always one to four; none without a name.
    #[must_use]
    pub fn wholes(&self) -> Vec<Vec<u8>> {
        let (given, family) = (&self.given, &self.family);
        if given.is_missing() && family.is_missing() {
            return Vec::new();
        }
        // `Dr` `Anna Rossi` and `Robert Downey` `Jr.`: the other field has the whole name.
        let (is_in_family, is_in_given) = (given.is_affix_of(family), family.is_affix_of(given));
        let (titles, suffixes) = given.affixes();
        let (other_titles, other_suffixes) = family.affixes();
        let affixes = [titles, suffixes, other_titles, other_suffixes];
        let has_affixes =
            is_in_family || is_in_given || affixes.iter().any(|affix| !affix.is_empty());

        let mut wholes = Vec::with_capacity(1);
        for one in letters(given) {
            for other in letters(family) {
                let without = |is_affix: bool, letters| if is_affix { "" } else { letters };
                wholes.push(whole(&[
                    without(is_in_family, one),
                    without(is_in_given, other),
                ]));
                if has_affixes {
                    // In whatever order and division, also where only this tells what is a suffix.
                    let parts = [titles, one, suffixes, other_titles, other, other_suffixes];
                    wholes.push(whole(&parts));
                }
            }
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

/// The letters of each form; nothing for a missing name.
fn letters(name: &Folded) -> impl Iterator<Item = &str> {
    let nothing = name.is_missing().then_some("");
    nothing.into_iter().chain(name.forms().map(Words::letters))
}

/// All letters from where their order is least: the same for `Anna Rossi` and `Rossi Anna`, wherever the given name ends.
fn whole(parts: &[&str]) -> Vec<u8> {
    let mut whole = parts.concat().into_bytes();
    let start = least_rotation(&whole);
    whole.rotate_left(start);
    whole
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
