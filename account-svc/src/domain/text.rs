//! Text that people type: trimmed, in Unicode NFC, bounded, without control characters.

use unicode_normalization::UnicodeNormalization as _;

/// Why a text was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Empty, or white space alone.
    #[error("required, at most {max} characters")]
    Missing {
        /// Most characters that are accepted.
        max: usize,
    },
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

/// A text of 1 to `max` characters.
///
/// # Errors
/// If it is empty, too long, or holds control characters.
pub fn required(text: &str, max: usize) -> Result<String, TextError> {
    match optional(text, max)? {
        text if text.is_empty() => Err(TextError::Missing { max }),
        text => Ok(text),
    }
}

/// A text of 0 to `max` characters.
///
/// # Errors
/// If it is too long or holds control characters.
pub fn optional(text: &str, max: usize) -> Result<String, TextError> {
    let text = text.trim();
    if let Some(character) = text.chars().find(|&character| is_refused(character)) {
        return Err(TextError::ControlCharacter(character.into()));
    }
    // Counted before normalizing, so that the work is bounded by the caller's own text.
    let actual = text.chars().count();
    if actual > max {
        return Err(TextError::TooLong { actual, max });
    }
    Ok(text.nfc().collect())
}

/// Control characters, line and paragraph separators, and the overrides and isolates that could make a
/// name read as another one (Unicode Technical Report 36, section 2.6).
fn is_refused(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
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
    fn what_cannot_be_seen_is_refused() {
        for text in ["a\0b", "a\nb", "a\u{1b}[31m", "a\u{202e}b", "a\u{2028}b"] {
            assert!(matches!(
                required(text, 10),
                Err(TextError::ControlCharacter(_))
            ));
        }
    }
}
