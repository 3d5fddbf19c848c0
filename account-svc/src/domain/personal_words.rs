//! What a password holds of the words that anybody knows of a person.

/// Most words that are looked for, and most characters of each: the work is bounded whatever a name holds.
const MAX_WORDS: usize = 128;
const MAX_WORD: usize = 64;
/// Fewest characters of a word, and of a place in the password that counts as made of words: two letters occur
/// everywhere by chance, `boli` for Bo Li does not.
const MIN_WORD: usize = 2;
const MIN_RUN: usize = 3;
/// Most separating characters between two words, or around them, that add nothing to a password.
const MAX_SEPARATOR: usize = 2;

/// The password without the words that are known of the person and the signs between them; `None` if it holds
/// none of them.
///
/// Words are found forwards and backwards, in either case, without accents, in Latin letters, and with the
/// digits and signs that people write for letters. The answer is in lower-case ASCII where that is possible.
pub(super) fn removed(password: &str, personal: &[&str]) -> Option<String> {
    let password: Vec<char> = folded(password).collect();
    let mut is_known = vec![false; password.len()];
    for word in words(personal) {
        for (start, place) in password.windows(word.len()).enumerate() {
            if place.iter().zip(&word).all(|(&is, &of)| stands_for(is, of)) {
                is_known[start..start + word.len()].fill(true);
            }
        }
    }
    let mut rest = String::new();
    let mut is_found = false;
    // Pieces of characters that are all known, or all unknown.
    for piece in password
        .iter()
        .zip(is_known)
        .collect::<Vec<_>>()
        .chunk_by(|(_, one), (_, other)| one == other)
    {
        let is_word =
            piece.first().is_some_and(|(_, is_known)| *is_known) && piece.len() >= MIN_RUN;
        let is_separator = piece.len() <= MAX_SEPARATOR
            && piece
                .iter()
                .all(|(character, _)| !character.is_alphanumeric());
        if is_word {
            is_found = true;
        } else if !is_separator {
            rest.extend(piece.iter().map(|(character, _)| **character));
        }
    }
    is_found.then_some(rest)
}

/// Each text in one piece, and each of its words, forwards and backwards.
fn words(personal: &[&str]) -> impl Iterator<Item = Vec<char>> {
    personal
        .iter()
        .flat_map(|text| {
            let parts = text.split(|character: char| !character.is_alphanumeric());
            std::iter::once(*text).chain(parts)
        })
        .map(|word| {
            word.chars()
                .filter(|letter| letter.is_alphanumeric())
                .take(MAX_WORD)
        })
        .map(String::from_iter)
        .filter(|word: &String| folded(word).nth(MIN_WORD - 1).is_some())
        .take(MAX_WORDS)
        .flat_map(|word| {
            let forwards: Vec<char> = folded(&word).collect();
            let backwards = forwards.iter().rev().copied().collect();
            // Not the same where one letter is written in Latin ones by several: `ж` by `zh`.
            let letters_backwards = folded(&word.chars().rev().collect::<String>()).collect();
            [forwards, backwards, letters_backwards]
        })
}

/// In lower-case ASCII where that is possible.
fn folded(text: &str) -> impl Iterator<Item = char> {
    text.chars()
        .flat_map(|character| {
            let ascii = any_ascii::any_ascii_char(character);
            let own = ascii.is_empty().then_some(character);
            ascii.chars().chain(own)
        })
        .flat_map(char::to_lowercase)
}

/// Whether a character of a password is a letter, or what people write for it.
fn stands_for(character: char, letter: char) -> bool {
    character == letter
        || match character {
            '0' => letter == 'o',
            '1' | '!' | '|' => matches!(letter, 'i' | 'l'),
            '3' => letter == 'e',
            '4' | '@' => letter == 'a',
            '5' | '$' => letter == 's',
            '6' | '9' => letter == 'g',
            '7' | '+' => letter == 't',
            '8' => letter == 'b',
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("zoe", &["Zoë"], Some(""))]
    #[case("x-ZOE-y", &["Zoë"], Some("x--y"))]
    #[case("3oz", &["Zoë"], Some(""))]
    #[case("zoe.zoe_7", &["Zoë"], Some("_7"))]
    #[case("zoe+-*zoe, ", &["Zoë"], Some("+-*"))]
    #[case("zzoey", &["Zoë"], Some("zy"))]
    #[case("libo", &["Bo", "Li"], Some(""))]
    #[case("bogus", &["Bo", "Li"], None)]
    #[case("osullivan", &["O'Sullivan"], Some(""))]
    #[case("Ж王", &["Zoë"], None)]
    #[case("", &["Zoë"], None)]
    #[case("zoe", &[], None)]
    fn words_are_removed(
        #[case] password: &str,
        #[case] personal: &[&str],
        #[case] rest: Option<&str>,
    ) {
        assert_eq!(removed(password, personal).as_deref(), rest);
    }

    #[test]
    fn the_work_is_bounded() {
        let long = "ab ".repeat(100_000);
        let found = words(&[&long, "zoe"]).count();
        assert_eq!(found, 3 * MAX_WORDS);
    }
}
