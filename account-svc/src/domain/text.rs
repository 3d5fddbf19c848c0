//! Text that people type: trimmed, in Unicode NFC, bounded, without control characters.

use icu_properties::props::{
    BinaryProperty as _, DefaultIgnorableCodePoint, EnumeratedProperty as _, GeneralCategory,
    GeneralCategoryGroup,
};
use unicode_normalization::{UnicodeNormalization as _, char::canonical_combining_class};

/// Why a text was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Empty, or white space alone.
    #[error("required, at most {max} characters")]
    Missing {
        /// Most characters that are accepted.
        max: usize,
    },
    /// Holds characters, none of which can be seen.
    #[error(
        "shows nothing: it holds only invisible characters; type at least one letter, digit or sign"
    )]
    Invisible,
    /// Longer than accepted.
    #[error("has {actual} characters; at most {max} are accepted")]
    TooLong {
        /// Characters in the text.
        actual: usize,
        /// Most characters that are accepted.
        max: usize,
    },
    /// Holds a character that is not shown or changes the order of others.
    #[error(
        "holds the character U+{0:04X}, which is not accepted: control characters and direction overrides are refused"
    )]
    ControlCharacter(u32),
}

/// A text of 1 to `max` characters, at least one of which can be seen.
///
/// # Errors
/// If it is empty, shows nothing, is too long, or holds control characters.
pub fn required(text: &str, max: usize) -> Result<String, TextError> {
    match optional(text, max)? {
        shown if !shown.is_empty() => Ok(shown),
        _ if text.trim().is_empty() => Err(TextError::Missing { max }),
        _ => Err(TextError::Invisible),
    }
}

/// A text of 0 to `max` characters. One that shows nothing counts as empty.
///
/// # Errors
/// If it is too long or holds control characters.
pub fn optional(text: &str, max: usize) -> Result<String, TextError> {
    let text = text.trim();
    if let Some(character) = text.chars().find(|&character| is_refused(character)) {
        return Err(TextError::ControlCharacter(character.into()));
    }
    let text = trimmed(text);
    // Counted before normalizing, so that the work is bounded by the caller's own text; and again, because
    // some characters have no composed form and become two or three.
    check_length(text, max)?;
    let text: String = text.nfc().collect();
    // Again, because marks may have changed places, and with them what the last character shapes.
    let text = trimmed(&text);
    check_length(text, max)?;
    if text.chars().any(is_visible_base) {
        Ok(text.to_owned())
    } else {
        Ok(String::new())
    }
}

fn check_length(text: &str, max: usize) -> Result<(), TextError> {
    match text.chars().count() {
        actual if actual > max => Err(TextError::TooLong { actual, max }),
        _ => Ok(()),
    }
}

/// Control characters, line and paragraph separators, and the overrides and isolates that could make a
/// name read as another one (Unicode Technical Report 36, section 2.6).
fn is_refused(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// Whether a character shows nothing: white space, what Unicode has renderers leave out
/// (`Default_Ignorable_Code_Point`: zero-width spaces and joiners, soft hyphens, fillers, variation selectors,
/// tags), and signs that are blank by design.
#[must_use]
pub fn is_invisible(character: char) -> bool {
    character.is_whitespace()
        || DefaultIgnorableCodePoint::for_char(character)
        || is_blank_sign(character)
}

/// Signs that are letters or symbols to Unicode and drawn as nothing: the braille pattern without dots, the
/// object replacement character, the blanks of Egyptian hieroglyphs, the null notehead (Unicode code charts).
fn is_blank_sign(character: char) -> bool {
    matches!(
        character,
        '\u{2800}' | '\u{FFFC}' | '\u{13441}' | '\u{13442}' | '\u{1D159}'
    )
}

/// Whether a character can be seen by itself: a letter, digit, punctuation mark or symbol, and not a mark that
/// combines with another character.
fn is_visible_base(character: char) -> bool {
    let base = GeneralCategoryGroup::Letter
        .union(GeneralCategoryGroup::Number)
        .union(GeneralCategoryGroup::Punctuation)
        .union(GeneralCategoryGroup::Symbol)
        // Shown by fonts of those who use it, for rare Chinese names among others.
        .union(GeneralCategoryGroup::PrivateUse);
    base.contains(GeneralCategory::for_char(character)) && !is_invisible(character)
}

/// Without invisible characters at both ends, but for one at the end that shapes the character before it.
fn trimmed(text: &str) -> &str {
    let text = text.trim_start_matches(is_invisible);
    let shown = text.trim_end_matches(is_invisible);
    let mut rest = text[shown.len()..].chars();
    match (shown.chars().next_back(), rest.next()) {
        (Some(last), Some(next)) if shapes(last, next) => &text[..shown.len() + next.len_utf8()],
        _ => shown,
    }
}

/// Whether an invisible character changes how the one before it looks: a variation selector, as in the Japanese
/// name 辻 with one dot or two, or a joiner after a virama, as at the end of Malayalam names written before
/// Unicode 5.1 (the rule of RFC 5892, appendix A).
fn shapes(last: char, next: char) -> bool {
    const VIRAMA: u8 = 9;
    match next {
        '\u{180B}'..='\u{180D}'
        | '\u{180F}'
        | '\u{FE00}'..='\u{FE0F}'
        | '\u{E0100}'..='\u{E01EF}' => true,
        '\u{200C}' | '\u{200D}' => canonical_combining_class(last) == VIRAMA,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[test]
    fn texts_are_trimmed_and_composed() {
        assert_eq!(required("  Zoe\u{308} ", 10).unwrap(), "Zoë");
        assert_eq!(required("   ", 10), Err(TextError::Missing { max: 10 }));
        assert_eq!(
            optional("abc", 2),
            Err(TextError::TooLong { actual: 3, max: 2 })
        );
    }

    #[test]
    fn characters_that_normalizing_takes_apart_count_as_what_they_become() {
        let error = TextError::TooLong { actual: 3, max: 2 };
        assert_eq!(optional("\u{FB2C}", 2), Err(error));
    }

    /// Normalizing puts the virama, after which a joiner is kept, before the other marks.
    #[test]
    fn a_joiner_is_kept_only_after_the_character_that_it_shapes() {
        let text = "\u{5E9}\u{94D}\u{5BC}\u{5C1}";
        let typed = "\u{FB2C}\u{94D}\u{200D}";
        assert_eq!(required(typed, 10).unwrap(), text);
        assert_eq!(
            required("\u{915}\u{94D}\u{200D}", 10).unwrap(),
            "\u{915}\u{94D}\u{200D}"
        );
    }

    #[test]
    fn what_cannot_be_seen_is_refused() {
        for text in [
            "a\0b",
            "a\nb",
            "a\u{1b}[31m",
            "a\u{202e}b",
            "\u{202e}ab",
            "a\u{2028}b",
        ] {
            assert!(matches!(
                required(text, 10),
                Err(TextError::ControlCharacter(_))
            ));
        }
    }

    #[rstest]
    #[case("\u{200B}")]
    #[case("\u{2060}\u{200D}")]
    #[case("\u{3164}")]
    #[case("\u{2800}\u{2800}")]
    #[case("\u{AD}")]
    #[case("\u{FEFF}")]
    #[case("\u{180E}")]
    #[case("\u{115F}\u{1160}")]
    #[case("\u{FFA0}")]
    #[case("\u{FE0F}\u{E0100}")]
    #[case("\u{E0041}\u{E007F}")]
    #[case("\u{301}")]
    #[case("\u{20DD}\u{903}")]
    #[case("\u{200E} \u{61C}")]
    #[case("\u{FFF9}\u{FFFB}")]
    #[case("\u{FFFC}")]
    #[case("\u{13441}")]
    #[case("\u{1D159}")]
    #[case("\u{16FE4}")]
    #[case("\u{FFFF}\u{FDD0}")]
    fn what_shows_nothing_is_no_text(#[case] text: &str) {
        assert_eq!(required(text, 10), Err(TextError::Invisible));
        assert_eq!(optional(text, 10).unwrap(), "");
    }

    #[rstest]
    #[case::zero_width_space("\u{200B}\u{FEFF}Ann \u{2060}\u{AD}", "Ann")]
    #[case::filler("\u{3164}Ann\u{3164}", "Ann")]
    #[case::non_joiner_inside("علی\u{200C}رضا", "علی\u{200C}رضا")]
    #[case::non_joiner_at_the_end("رضا\u{200C}", "رضا")]
    #[case::joiner_inside("ශ්\u{200D}රී", "ශ්\u{200D}රී")]
    #[case::joiner_at_the_end("അവന്\u{200D} ", "അവന്\u{200D}")]
    #[case::variation_at_the_end("辻\u{E0100}", "辻\u{E0100}")]
    #[case::two_variations("辻\u{E0100}\u{E0101}", "辻\u{E0100}")]
    #[case::one_sign("-", "-")]
    fn invisible_characters_go_from_the_ends_alone(#[case] typed: &str, #[case] text: &str) {
        assert_eq!(required(typed, 20).unwrap(), text);
    }

    /// Texts of characters that are likely to go wrong together.
    fn tricky() -> impl Strategy<Value = String> {
        let characters = [
            ' ',
            'a',
            'e',
            '\u{301}',
            '\u{308}',
            '\u{94D}',
            '\u{200B}',
            '\u{200D}',
            '\u{200C}',
            '\u{FE0F}',
            '\u{E0100}',
            '\u{3164}',
            '\u{2800}',
            '\u{AD}',
            '\u{915}',
            '\u{93C}',
            '\u{34F}',
            '\u{180B}',
            '\u{FB2C}',
        ];
        proptest::collection::vec(proptest::sample::select(characters.to_vec()), 0..12)
            .prop_map(String::from_iter)
    }

    proptest! {
        #[test]
        fn texts_are_stable(text in prop_oneof![tricky(), "\\PC{0,40}"]) {
            if let Ok(accepted) = required(&text, 60) {
                prop_assert_eq!(required(&accepted, 60), Ok(accepted.clone()));
                prop_assert!(accepted.chars().any(is_visible_base));
                prop_assert!(!accepted.starts_with(is_invisible));
            }
        }

        #[test]
        fn nothing_visible_is_never_accepted(text in "[\\s\\p{M}\\p{Cf}\\p{Cc}]{0,20}") {
            prop_assert!(required(&text, 60).is_err());
        }

        #[test]
        fn letters_are_always_accepted(text in "\\p{Lu}\\p{Ll}{0,9}") {
            prop_assert!(required(&text, 60).is_ok());
        }
    }
}
