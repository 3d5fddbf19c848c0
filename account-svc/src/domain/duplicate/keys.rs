//! What accounts that may be the same client are found by: keys that both have, hashed, under one index.
//!
//! The hashes are stored. Whoever changes a key, a row of nicknames or fillers, or how names are folded (`any_ascii`
//! and `unicode-normalization` take part in that), raises [`KEYS_VERSION`], once there is a release.

use usher_runtime::hidden_debug;

use super::{Identity, NameHashes};
use crate::domain::name::{Folded, FoldedName, Whole, Words, nicknames, skeleton};

#[cfg(test)]
mod tests;

/// What the stored keys and name hashes of a [`Fingerprint`] are derived by: those of accounts with an older version are
/// derived anew in the background.
pub const KEYS_VERSION: i16 = 1;

/// Most accounts of one key: what more of them have is too common to tell them apart. Of equal names, more than are
/// shown.
pub const MAX_POSTINGS: usize = 50;
/// Candidates from which no more common key is looked up.
pub const ENOUGH_CANDIDATES: usize = 60;

/// Letters at the beginning or end of a name that a key holds.
const AFFIX: usize = 2;
/// Most letters of a word that may be a particle.
const PARTICLE: usize = 3;
/// Number of letters that a skeleton lacks, from which more count as so many.
const MOST_LEFT_OUT: u8 = 2;

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

/// What an entry is locked, found and counted by. `Debug` shows nothing of it.
#[derive(Clone)]
pub struct Fingerprint {
    /// The keys that equal names have in common: one to six, nearly always one, ascending; none without a name.
    ///
    /// Two names that are equal share one, and nearly all that share one are equal: neither case, accents, spacing nor
    /// punctuation matter, nor how umlauts are spelled, nor the order of the two names, nor where the given name ends,
    /// nor titles and suffixes.
    pub exact_keys: Vec<i64>,
    /// All keys that an account is found by, these among them, ascending: about eight of the name, and two of a birth
    /// date. Each costs a create the insertion of a row; with more of them, no more duplicates were found
    /// (`make duplicates`).
    pub blocking_keys: Vec<i64>,
    /// What its names are counted by.
    pub name_hashes: NameHashes,
}

hidden_debug!(Fingerprint);

impl Fingerprint {
    /// That of an entry.
    #[must_use]
    pub fn new(identity: &Identity) -> Self {
        let name = FoldedName::new(&identity.name);
        let wholes = name.wholes();
        let exact_keys = exact_keys(&wholes);
        Self {
            blocking_keys: blocking_keys(identity, &name, &wholes, &exact_keys),
            exact_keys,
            name_hashes: NameHashes {
                given: name_hash(&name.given),
                family: name_hash(&name.family),
            },
        }
    }
}

/// Of each whole, its skeleton with how many letters that lacks. Without the number, many accounts called `Yu` would
/// hide one that is called `Yue`; with it, a name with umlauts has a key for each number.
fn exact_keys(wholes: &[Whole]) -> Vec<i64> {
    let at_most = |number| u8::try_from(number).map_or(MOST_LEFT_OUT, |it| it.min(MOST_LEFT_OUT));
    let mut keys = Vec::with_capacity(2);
    for whole in wholes {
        let (least, most) = whole.letters_left_out().into_inner();
        for number in at_most(least)..=at_most(most) {
            keys.push(hash(Kind::ExactName, &[whole.skeleton(), &[number]]));
        }
    }
    keys.sort_unstable();
    keys.dedup();
    keys
}

fn blocking_keys(
    identity: &Identity,
    name: &FoldedName,
    wholes: &[Whole],
    exact: &[i64],
) -> Vec<i64> {
    let mut keys = Vec::with_capacity(20);
    keys.extend_from_slice(exact);
    add_affix_keys(&mut keys, name);
    add_name_keys(&mut keys, name);
    if let Some(date) = identity.birth_date {
        let year = date.year().to_be_bytes();
        let day = [u8::from(date.month()), date.day()];
        keys.push(hash(Kind::BirthDate, &[&year, &day]));
        // Where a name is common and so is the date: many clients are entered as born on the first of January.
        for whole in wholes {
            keys.push(hash(
                Kind::NameWithBirthDate,
                &[whole.skeleton(), &year, &day],
            ));
        }
    }
    if let Some(phone) = &identity.phone {
        keys.push(hash(Kind::Phone, &[phone.as_bytes()]));
    }
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Keys that survive typing errors in both names. In small organizations: in large ones, too many accounts have them.
fn add_affix_keys(keys: &mut Vec<i64>, name: &FoldedName) {
    let (one, other) = (name.given.latin(), name.family.latin());
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
}

/// Keys that survive errors in one name, swapped names, nicknames, and parts of double names, also in large
/// organizations.
fn add_name_keys(keys: &mut Vec<i64>, name: &FoldedName) {
    let (given, family) = (&name.given, &name.family);
    if given.is_missing() || family.is_missing() {
        return;
    }
    // One name or a part of it, and how the other begins.
    for (whole, part) in [(given, family), (family, given)] {
        let initial = prefix(part.latin(), 1).as_bytes();
        let words = whole.latin_words();
        for letters in std::iter::once(words.letters()).chain(parts(words)) {
            keys.push(hash(Kind::NameWithInitial, &[&skeleton(letters), initial]));
        }
    }
    let family = skeleton(family.latin());
    for row in nicknames::rows(given) {
        keys.push(hash(Kind::Nickname, &[row.as_bytes(), &family]));
    }
}

/// The first and the last of several words: what people leave out is the rest. Not particles such as `de` and `van`,
/// which too many have.
fn parts(words: &Words) -> impl Iterator<Item = &str> {
    let mut words = words.each();
    let ends = words.next().zip(words.next_back());
    let ends = ends.into_iter().flat_map(|(first, last)| [first, last]);
    ends.filter(|word| word.chars().count() > PARTICLE)
}

/// What a given or family name is counted by in the frequencies of an organization. `None` for a filler.
pub(super) fn name_hash(name: &Folded) -> Option<i64> {
    (!name.is_missing()).then(|| hash(Kind::Frequency, &[name.plain().as_bytes()]))
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
