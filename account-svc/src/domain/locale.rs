//! Languages that emails are written in.

use usher_runtime::languages::LANGUAGES;

/// Why a language was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a language that emails are written in; `en` and `fr` are, also with a region like `fr-CA`"
)]
pub struct LocaleError;

/// A language tag whose language there are templates for: `en`, `fr`, `fr-CA`; empty stays empty.
///
/// # Errors
/// If there are no templates in that language, or the tag is malformed (BCP 47).
pub fn parse(text: &str) -> Result<String, LocaleError> {
    let text = text.trim();
    let (language, region) = text.split_once('-').unwrap_or((text, ""));
    let language = language.to_ascii_lowercase();
    let is_region = region.is_empty() && !text.contains('-')
        || region.len() == 2 && region.bytes().all(|byte| byte.is_ascii_alphabetic());
    match (
        text.is_empty(),
        is_region && LANGUAGES.contains(&language.as_str()),
    ) {
        (true, _) => Ok(String::new()),
        (false, false) => Err(LocaleError),
        (false, true) if region.is_empty() => Ok(language),
        (false, true) => Ok(format!("{language}-{}", region.to_ascii_uppercase())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_with_templates_are_accepted() {
        assert_eq!(parse("EN").unwrap(), "en");
        assert_eq!(parse("fr-ca").unwrap(), "fr-CA");
        assert_eq!(parse("").unwrap(), "");
        for text in ["de", "fr-", "fr-Canada", "english", "fr_CA"] {
            assert_eq!(parse(text), Err(LocaleError), "{text}");
        }
    }
}
