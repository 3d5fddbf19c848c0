//! What accounts that may be the same client are found by: keys that both have, hashed, under one index.
//!
//! The hashes are stored. Whoever changes a key, or how names are folded, indexes all accounts anew.

use super::Identity;
use crate::domain::name::{Folded, PersonName, nicknames};

/// Most accounts of one key: what more of them have is too common to tell them apart.
pub const MAX_POSTINGS: usize = 100;
/// Candidates from which no more common key is looked up.
pub const ENOUGH_CANDIDATES: usize = 150;

/// Letters at the beginning or end of a name that a key holds.
const AFFIX: usize = 2;

/// What a key is made of. Kept apart, so that a name and a date never meet.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Kind {
    ExactName = 1,
    Affixes = 2,
    NameWithAffix = 3,
    NameWithInitial = 4,
    Nickname = 5,
    BirthDateWithInitial = 6,
    NameWithYear = 7,
    NameWithDay = 8,
    Phone = 9,
    GivenOrFamily = 10,
}

/// The keys of a name that equal names have in common: one to four, ascending; none without a name.
///
/// Two names are equal if they share a key: neither case, accents, spacing nor punctuation matter, nor the order
/// of the two names, nor where the given name ends.
#[must_use]
pub fn exact_keys(name: &PersonName) -> Vec<i64> {
    exact(&Folded::new(&name.given), &Folded::new(&name.family))
}

/// All keys that an account is found by, ascending: about ten of the name, and four of a birth date.
#[must_use]
pub fn blocking_keys(identity: &Identity) -> Vec<i64> {
    let given = Folded::new(&identity.name.given);
    let family = Folded::new(&identity.name.family);
    let exact = exact(&given, &family);
    let mut keys = Vec::with_capacity(24);
    keys.extend_from_slice(&exact);
    add_name_keys(&mut keys, &given, &family);
    if let Some(date) = identity.birth_date {
        let year = date.year().to_be_bytes();
        let day = [u8::from(date.month()), date.day()];
        for name in [&given, &family] {
            let initial = prefix(name.latin(), 1).as_bytes();
            keys.push(hash(Kind::BirthDateWithInitial, &[&year, &day, initial]));
        }
        for name in &exact {
            let name = name.to_be_bytes();
            keys.push(hash(Kind::NameWithYear, &[&name, &year]));
            keys.push(hash(Kind::NameWithDay, &[&name, &day]));
        }
    }
    if let Some(phone) = &identity.phone {
        keys.push(hash(Kind::Phone, &[phone.as_bytes()]));
    }
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Keys that survive typing errors in one name, or one in each, swapped names, nicknames, initials, and parts
/// of double names.
fn add_name_keys(keys: &mut Vec<i64>, given: &Folded, family: &Folded) {
    let (one, other) = (given.latin(), family.latin());
    // In small organizations: what is left of both names.
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
    if given.is_missing() || family.is_missing() {
        return;
    }
    // In large ones: one name whole, and what is left of the other.
    for (whole, part) in [(one, other), (other, one)] {
        let whole = whole.as_bytes();
        for (end, affix) in [(b'<', prefix(part, AFFIX)), (b'>', suffix(part, AFFIX))] {
            keys.push(hash(
                Kind::NameWithAffix,
                &[whole, &[end], affix.as_bytes()],
            ));
        }
        keys.push(hash(
            Kind::NameWithInitial,
            &[whole, prefix(part, 1).as_bytes()],
        ));
    }
    for row in nicknames::rows(given) {
        keys.push(hash(Kind::Nickname, &[row.as_bytes(), other.as_bytes()]));
    }
}

/// What a given or family name is counted by in the frequencies of an organization. `None` for a filler.
pub(super) fn name_key(name: &Folded) -> Option<i64> {
    (!name.is_missing()).then(|| hash(Kind::GivenOrFamily, &[name.plain().as_bytes()]))
}

/// [`exact_keys`] of a folded name.
pub(super) fn exact(given: &Folded, family: &Folded) -> Vec<i64> {
    let mut keys = Vec::with_capacity(1);
    let mut add = |given: &str, family: &str| {
        let mut whole = [given, family].concat().into_bytes();
        let start = least_rotation(&whole);
        whole.rotate_left(start);
        keys.push(hash(Kind::ExactName, &[&whole]));
    };
    match (given.is_missing(), family.is_missing()) {
        (true, true) => {}
        (false, true) => given.forms().for_each(|given| add(given, "")),
        (true, false) => family.forms().for_each(|family| add("", family)),
        (false, false) => {
            for given in given.forms() {
                family.forms().for_each(|family| add(given, family));
            }
        }
    }
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Where the least of all rotations of a text begins: the same text for `Anna Rossi` and `Rossi Anna`,
/// wherever the given name ends (Duval's way to a minimal rotation).
fn least_rotation(text: &[u8]) -> usize {
    let at = |index: usize| text[index % text.len()];
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
/// comparison.
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
