//! Given names that one person may go by: short forms, forms in other languages, usual spellings.

use std::{collections::HashMap, sync::LazyLock};

use super::Folded;

/// One name a row, followed by what people are called instead.
const NICKNAMES: &str = include_str!("../nicknames.txt");

/// The rows that hold a folded name, each by its first name.
static ROWS: LazyLock<HashMap<String, Vec<&str>>> = LazyLock::new(|| {
    let mut rows: HashMap<String, Vec<&str>> = HashMap::new();
    for line in lines() {
        let first = line.split_whitespace().next().unwrap_or_default();
        for name in line.split_whitespace() {
            let name = Folded::new(name);
            let written_out = name.spelled().spellings().written_out();
            for letters in written_out.into_iter().chain([name.plain().to_owned()]) {
                let of_name = rows.entry(letters).or_default();
                if of_name.last() != Some(&first) {
                    of_name.push(first);
                }
            }
        }
    }
    rows
});

pub(super) fn lines() -> impl Iterator<Item = &'static str> {
    NICKNAMES
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// The rows that hold a name, each by its first name, in the order of the table; those of the name's first word
/// where the whole is in none. Two names with a row in common may be the same.
#[must_use]
pub fn rows(name: &Folded) -> &'static [&'static str] {
    let of = |word: &str| ROWS.get(word).map(Vec::as_slice);
    of(name.plain())
        .or_else(|| of(name.words().next()?))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_known_by_its_first_name() {
        let mut first: Vec<&str> = lines()
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        let all = first.len();
        first.sort_unstable();
        first.dedup();
        assert_eq!(first.len(), all);
    }
}
