//! When two spellings are equal: each umlaut of a name may be written as it is, without its marks, or out as two
//! letters, as passports write it (ICAO 9303-3, section 6).

/// An umlaut or its like in the letters of a name, where it stands without its marks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Umlaut {
    /// Where it ends, in bytes.
    pub end: usize,
    /// What follows it where it is written out: `e`, and behind an `å` another `a`.
    pub second: u8,
}

/// The spellings of a name, or of a word of it.
#[derive(Clone, Copy)]
pub struct Spellings<'a> {
    /// Without marks.
    pub(super) letters: &'a str,
    pub(super) umlauts: &'a [Umlaut],
    /// Where the letters begin in those that the umlauts are counted in.
    pub(super) start: usize,
}

impl Spellings<'_> {
    /// Whether both can be spelled in one way.
    #[must_use]
    pub fn meet(self, other: Self) -> bool {
        if self.umlauts.is_empty() && other.umlauts.is_empty() {
            return self.letters == other.letters;
        }
        // For most names, this decides. What may be left out is never the first letter.
        self.letters.as_bytes().first() == other.letters.as_bytes().first()
            && meet(&self.to_letters(), &other.to_letters())
    }

    fn to_letters(self) -> Vec<Letter> {
        let mut letters = Vec::with_capacity(self.letters.len() + self.umlauts.len());
        self.append_to(&mut letters);
        letters
    }

    /// Appends the letters, and behind each umlaut the one that may follow.
    pub(super) fn append_to(self, letters: &mut Vec<Letter>) {
        let mut rest = self.letters.as_bytes();
        let mut start = self.start;
        let letter = |&letter: &u8| Letter {
            letter,
            is_optional: false,
        };
        for umlaut in self.umlauts {
            let (before, after) = rest.split_at(umlaut.end - start);
            letters.extend(before.iter().map(letter));
            letters.push(Letter {
                letter: umlaut.second,
                is_optional: true,
            });
            (rest, start) = (after, umlaut.end);
        }
        letters.extend(rest.iter().map(letter));
    }

    /// With each umlaut written out, if there is any.
    pub(super) fn written_out(self) -> Option<String> {
        let letters = self.to_letters().into_iter().map(|letter| letter.letter);
        (!self.umlauts.is_empty())
            .then(|| String::from_utf8(letters.collect()).ok())
            .flatten()
    }
}

/// A letter of a name, or a part of one in UTF-8.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Letter {
    pub letter: u8,
    /// Whether it is there only where an umlaut is written out.
    pub is_optional: bool,
}

/// Whether some choice of the optional letters makes both the same.
pub(super) fn meet(one: &[Letter], other: &[Letter]) -> bool {
    if one == other {
        return true;
    }
    if one.iter().chain(other).all(|letter| !letter.is_optional) {
        return false;
    }
    // How many of the letters of `other` the letters so far of `one` may be written as, ascending: nearly always one
    // or two numbers.
    let mut reached = Vec::with_capacity(4);
    let mut next = Vec::with_capacity(4);
    reach(&mut reached, 0, other);
    for letter in one {
        for &count in &reached {
            if letter.is_optional {
                next.push(count);
            }
            if other
                .get(count)
                .is_some_and(|of| of.letter == letter.letter)
            {
                reach(&mut next, count + 1, other);
            }
        }
        next.sort_unstable();
        next.dedup();
        std::mem::swap(&mut reached, &mut next);
        next.clear();
        if reached.is_empty() {
            return false;
        }
    }
    reached.contains(&other.len())
}

/// Adds a count of letters, and those with the optional letters that follow.
fn reach(reached: &mut Vec<usize>, count: usize, letters: &[Letter]) {
    let rest = letters.iter().skip(count);
    let optional = rest.take_while(|letter| letter.is_optional).count();
    reached.extend(count..=count + optional);
}

/// Whether a letter is left out of a skeleton: where it follows `before` in it, it may be the second one of an umlaut.
/// All spellings of a name have one skeleton.
pub(super) fn may_be_of_umlaut(before: Option<u8>, letter: u8) -> bool {
    matches!(
        (before, letter),
        (Some(b'a' | b'o' | b'u'), b'e') | (Some(b'a'), b'a')
    )
}

/// The letters that no spelling leaves out: `muller` for `Müller`, `Mueller` and `Muller`. Names that differ may have
/// the same.
#[must_use]
pub fn skeleton(letters: &str) -> Vec<u8> {
    let mut skeleton = Vec::with_capacity(letters.len());
    for letter in letters.bytes() {
        if !may_be_of_umlaut(skeleton.last().copied(), letter) {
            skeleton.push(letter);
        }
    }
    skeleton
}
