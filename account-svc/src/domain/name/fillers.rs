//! What people type where they know no name.

use std::{collections::HashSet, sync::LazyLock};

use super::folded::fold_words;

/// Fillers of a language a row.
const FILLERS: &str = include_str!("../fillers.txt");

/// As they are written, without spaces, in small letters: without their signs they would be names or initials.
const ABBREVIATIONS: [&str; 11] = [
    "n/a", "n\\a", "#n/a", "#na", "n/k", "n/d", "n/n", "s/n", "s/d", "k/a", "н/д",
];

/// The same for those that are written like initials: which of them is meant, the other name tells.
const DOTTED_ABBREVIATIONS: [&str; 4] = ["n.a.", "n.a", "k.a.", "k.a"];

/// The letters of each, also with umlauts written out.
static LETTERS: LazyLock<HashSet<String>> = LazyLock::new(|| {
    rows()
        .flat_map(|row| row.split(';'))
        .flat_map(|filler| {
            let words = fold_words(filler);
            let written_out = words.spellings().written_out();
            written_out.into_iter().chain([words.letters])
        })
        .collect()
});

fn rows() -> impl Iterator<Item = &'static str> {
    FILLERS
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Whether a name with these folded letters is none.
pub(super) fn is_filler(name: &str, letters: &str) -> bool {
    let Some(first) = letters.as_bytes().first() else {
        return true;
    };
    let is_one_letter = letters.len() >= 3 && letters.bytes().all(|letter| letter == *first);
    // `Unknown`, `Unknown Unknown`.
    is_one_letter
        || (1..=3).any(|times| once(letters, times).is_some_and(|once| LETTERS.contains(once)))
        || is_one_of(&ABBREVIATIONS, name)
}

/// Whether a name is none beside another that is none: `N. A.` beside a name are initials, which are the same without
/// dots.
pub(super) fn is_filler_or_initials(name: &str) -> bool {
    is_one_of(&DOTTED_ABBREVIATIONS, name)
}

fn is_one_of(abbreviations: &[&str], name: &str) -> bool {
    if !name.contains(['/', '\\', '.', '#']) {
        return false;
    }
    let letters = name.chars().filter(|letter| !letter.is_whitespace());
    let written: String = letters.flat_map(char::to_lowercase).collect();
    (1..=2).any(|times| once(&written, times).is_some_and(|once| abbreviations.contains(&once)))
}

/// What a text repeats so many times, if it does.
fn once(text: &str, times: usize) -> Option<&str> {
    let once = text.get(..text.len() / times)?;
    let is_repeated = || {
        let mut repeats = text.as_bytes().chunks(once.len());
        repeats.all(|repeat| repeat == once.as_bytes())
    };
    (!once.is_empty() && is_repeated()).then_some(once)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::domain::name::{Folded, nicknames};

    #[rstest]
    fn a_filler_is_no_name(
        #[values(
            "-",
            ".",
            "--",
            "?",
            "…",
            "N/A",
            "N / A",
            "n/a n/a",
            "N.N.",
            "n. n.",
            "NN",
            "Unknown",
            "Unknown Unknown",
            "unknown-unknown",
            "Mr. Unknown",
            "Not available",
            "NOT_GIVEN",
            "No name",
            "UNBEKANNT",
            "keine Angabe",
            "nicht verfuegbar",
            "S / D",
            "inconnu",
            "Non renseigné",
            "sin nombre",
            "Não informado",
            "senza nome",
            "geen achternaam",
            "okänd",
            "brak danych",
            "neznámý",
            "xxx",
            "Неизвестно",
            "неизвестный",
            "н/д",
            "без имени",
            "άγνωστος",
            "bilinmiyor",
            "غير معروف",
            "نامعلوم",
            "לא ידוע",
            "अज्ञात",
            "不明",
            "未知",
            "名無し",
            "알 수 없음",
            "♥"
        )]
        filler: &str,
    ) {
        assert!(Folded::new(filler).is_missing());
        assert!(!Folded::new(filler).equals(&Folded::new(filler)));
    }

    #[rstest]
    fn short_names_and_initials_are_no_fillers(
        #[values(
            "Na",
            "Na Na",
            "N A",
            "N. A.",
            "K.A.",
            "No",
            "X",
            "Ng",
            "Nil",
            "Sin",
            "Nan",
            "Ka",
            "Oo",
            "Ii",
            "S. N.",
            "Nona",
            "李",
            "Li",
            "나",
            "\u{107B3}"
        )]
        name: &str,
    ) {
        assert!(Folded::new(name).equals(&Folded::new(name)));
    }

    #[test]
    fn no_name_that_people_go_by_is_a_filler() {
        for name in nicknames::lines().flat_map(str::split_whitespace) {
            assert!(!Folded::new(name).is_missing(), "{name}");
        }
    }

    #[test]
    fn each_filler_is_known() {
        for filler in rows().flat_map(|row| row.split(';')) {
            assert!(Folded::new(filler).is_missing(), "{filler}");
        }
    }
}
