//! The texts of the emails: one Fluent resource per language.

use fluent_bundle::concurrent::FluentBundle;
use fluent_bundle::{FluentArgs, FluentResource, FluentValue};
use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, State, Value};
use unic_langid::LanguageIdentifier;

use super::{RenderError, values};

/// The languages that emails are written in, each with its texts.
pub(super) const LOCALES: [(&str, &str); 2] = [
    ("en", include_str!("../../templates/en.ftl")),
    ("fr", include_str!("../../templates/fr.ftl")),
];

/// The language that serves a BCP 47 tag: the one with the same primary subtag.
pub(super) fn match_locale(tag: &str) -> Option<&'static str> {
    let language = tag.split(['-', '_']).next()?;
    LOCALES
        .iter()
        .map(|(locale, _)| *locale)
        .find(|locale| locale.eq_ignore_ascii_case(language))
}

/// The texts of all languages.
pub(super) struct Translations {
    bundles: Vec<(&'static str, FluentBundle<FluentResource>)>,
}

impl Translations {
    pub(super) fn new() -> Result<Self, RenderError> {
        let bundles = LOCALES
            .iter()
            .map(|&(locale, source)| Ok((locale, bundle(locale, source)?)))
            .collect::<Result<_, RenderError>>()?;
        Ok(Self { bundles })
    }

    /// The template function `t`: a message in the language of the email, with the email's variables.
    pub(super) fn translate(&self, state: &State, message: &str) -> Result<String, Error> {
        let locale = state.lookup("locale").unwrap_or_default();
        let mut args = FluentArgs::new();
        for &name in values::TEXT_VARIABLES {
            if let Some(value) = state.lookup(name) {
                args.set(name, fluent_value(&value));
            }
        }
        self.format(locale.as_str().unwrap_or_default(), message, &args)
            .map_err(|reason| Error::new(ErrorKind::InvalidOperation, reason))
    }

    /// Formats one message; the error says what is missing, without any value.
    fn format(&self, locale: &str, message: &str, args: &FluentArgs) -> Result<String, String> {
        let (_, bundle) = self
            .bundles
            .iter()
            .find(|(known, _)| *known == locale)
            .ok_or_else(|| format!("no translations for locale {locale:?}"))?;
        let pattern = bundle
            .get_message(message)
            .and_then(|found| found.value())
            .ok_or_else(|| format!("no message {message:?} in {locale}.ftl"))?;
        let mut errors = Vec::new();
        let text = bundle.format_pattern(pattern, Some(args), &mut errors);
        match errors.first() {
            None => Ok(text.into_owned()),
            Some(error) => Err(format!("message {message:?} in {locale}.ftl: {error}")),
        }
    }
}

fn bundle(locale: &'static str, source: &str) -> Result<FluentBundle<FluentResource>, RenderError> {
    let malformed = |reason: String| RenderError::Translations { locale, reason };
    let language: LanguageIdentifier = locale
        .parse()
        .map_err(|error| malformed(format!("{error}")))?;
    let resource = FluentResource::try_new(source.to_owned())
        .map_err(|(_, errors)| malformed(format!("{errors:?}")))?;
    let mut bundle = FluentBundle::new_concurrent(vec![language]);
    // Isolation marks around every variable show as boxes in some mail programs; `Values` puts them
    // where they are needed.
    bundle.set_use_isolating(false);
    bundle
        .add_resource(resource)
        .map_err(|errors| malformed(format!("{errors:?}")))?;
    Ok(bundle)
}

fn fluent_value(value: &Value) -> FluentValue<'static> {
    match (value.kind(), i64::try_from(value.clone())) {
        (ValueKind::Number, Ok(number)) => FluentValue::from(number),
        _ => FluentValue::from(value.to_string()),
    }
}
