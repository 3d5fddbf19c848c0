//! Languages that emails are written in.

use std::fmt;

use usher_runtime::languages::LANGUAGES;

/// Why a language was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocaleError;

impl fmt::Display for LocaleError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "not a language that emails are written in; expected one of {}, also with a region of two letters \
             as in `fr-CA`",
            LANGUAGES.map(|language| format!("`{language}`")).join(", ")
        )
    }
}

impl std::error::Error for LocaleError {}

/// A language tag whose language there are templates for: `en`, `fr`, `fr-CA`; empty stays empty. The language
/// comes out in lower case and the region in upper case (RFC 5646, section 2.1.1).
///
/// # Errors
/// If there are no templates in that language, or the tag is anything but a language, or a language, a hyphen
/// and a region of two letters.
pub fn parse(text: &str) -> Result<String, LocaleError> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(String::new());
    }
    let (tag, region) = match text.split_once('-') {
        Some((tag, region)) => (tag, Some(region)),
        None => (text, None),
    };
    let language = LANGUAGES
        .into_iter()
        .find(|language| language.eq_ignore_ascii_case(tag))
        .ok_or(LocaleError)?;
    match region {
        None => Ok(language.to_owned()),
        Some(region) if is_region(region) => {
            Ok(format!("{language}-{}", region.to_ascii_uppercase()))
        }
        Some(_) => Err(LocaleError),
    }
}

fn is_region(region: &str) -> bool {
    region.len() == 2 && region.bytes().all(|byte| byte.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("EN", "en")]
    #[case("fr-ca", "fr-CA")]
    #[case(" fr ", "fr")]
    #[case("", "")]
    fn languages_with_templates_are_accepted(#[case] typed: &str, #[case] tag: &str) {
        assert_eq!(parse(typed).unwrap(), tag);
    }

    #[rstest]
    #[case("de")]
    #[case("fr-")]
    #[case("-")]
    #[case("-CA")]
    #[case("fr--CA")]
    #[case("fr-C")]
    #[case("fr-CA-")]
    #[case("fr-CA-x")]
    #[case("fr-ÇA")]
    #[case("fr-é")]
    #[case("fr-12")]
    #[case("fr-Canada")]
    #[case("english")]
    #[case("en_US")]
    #[case("fr_CA")]
    #[case("fr CA")]
    #[case("fr-CA;en")]
    fn malformed_tags_are_refused(#[case] text: &str) {
        assert_eq!(parse(text), Err(LocaleError));
    }

    #[test]
    fn the_message_names_every_language() {
        let message = LocaleError.to_string();
        assert!(
            LANGUAGES
                .iter()
                .all(|language| message.contains(&format!("`{language}`")))
        );
    }

    proptest! {
        #[test]
        fn accepted_tags_are_canonical(text in prop_oneof![
            "[ ]?([eE][nN]|[fF][rR]|de)[-_]{0,2}[a-zA-ZéÇ0-9]{0,3}[- ]?", "\\PC{0,8}"
        ]) {
            if let Ok(tag) = parse(&text) {
                prop_assert_eq!(parse(&tag), Ok(tag.clone()));
                let language = tag.split('-').next().unwrap();
                prop_assert!(tag.is_empty() || LANGUAGES.contains(&language));
                prop_assert!(matches!(tag.len(), 0 | 2 | 5), "{}", tag);
                prop_assert!(tag.eq_ignore_ascii_case(text.trim()));
            }
        }
    }
}
