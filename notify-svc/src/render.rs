//! Emails from templates: the one way from values to subject, HTML and text, for sending and for previews.
//!
//! Per kind of email there are three templates under `templates/`: `subject.txt`, `body.mjml` and
//! `body.txt`; `templates/parts` holds what they share. Their texts come from `templates/<locale>.ftl`
//! through the function `t("message-id")`. MJML becomes HTML once, at start; an email then costs one pass
//! of minijinja over each of the three.

mod translations;
mod values;

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
};

use minijinja::{AutoEscape, Environment, Error, Output, State, UndefinedBehavior, Value, context};
use mrml::prelude::render::RenderOptions;

use self::translations::Translations;
pub use self::values::Values;
use crate::domain::MailKind;

/// The three templates of one kind of email.
struct Sources {
    subject: &'static str,
    mjml: &'static str,
    text: &'static str,
}

impl Sources {
    fn of(kind: MailKind) -> Self {
        match kind {
            MailKind::Activation => Self {
                subject: include_str!("../templates/activation/subject.txt"),
                mjml: include_str!("../templates/activation/body.mjml"),
                text: include_str!("../templates/activation/body.txt"),
            },
            MailKind::ShareRequest => Self {
                subject: include_str!("../templates/share_request/subject.txt"),
                mjml: include_str!("../templates/share_request/body.mjml"),
                text: include_str!("../templates/share_request/body.txt"),
            },
        }
    }
}

/// Parts that the MJML templates share: file name and source.
const MJML_PARTS: [(&str, &str); 4] = [
    ("head.mjml", include_str!("../templates/parts/head.mjml")),
    (
        "header.mjml",
        include_str!("../templates/parts/header.mjml"),
    ),
    ("link.mjml", include_str!("../templates/parts/link.mjml")),
    (
        "footer.mjml",
        include_str!("../templates/parts/footer.mjml"),
    ),
];

/// Parts that the plain texts share.
const TEXT_PARTS: [(&str, &str); 2] = [
    (
        "parts/link.txt",
        include_str!("../templates/parts/link.txt"),
    ),
    (
        "parts/footer.txt",
        include_str!("../templates/parts/footer.txt"),
    ),
];

/// An email, ready to be sent. Not `Debug`: it holds a usable link and personal data.
#[derive(Clone, PartialEq, Eq)]
pub struct Rendered {
    /// Subject line: one line, no control characters.
    pub subject: String,
    /// HTML body.
    pub html: String,
    /// Plain text body, lines ended by `\n`.
    pub text: String,
    /// Language that was used, for example `fr`.
    pub locale: String,
}

/// Why an email could not be rendered. The messages hold no values of the email.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// A built-in MJML template is malformed.
    #[error("template {template}: {reason}")]
    Mjml {
        /// Name of the template.
        template: &'static str,
        /// What the parser or the renderer said.
        reason: String,
    },
    /// The texts of a language are malformed.
    #[error("translations of locale {locale}: {reason}")]
    Translations {
        /// The language.
        locale: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A template is malformed, or names a variable or a message that does not exist.
    #[error("template: {0}")]
    Template(#[from] Error),
    /// A value cannot be used in an email.
    #[error("{field}: {expected}")]
    Value {
        /// Which field of [`Values`].
        field: &'static str,
        /// What is accepted.
        expected: &'static str,
    },
}

/// The compiled templates. Make one at start and share it.
#[derive(Debug)]
pub struct Renderer {
    environment: Environment<'static>,
}

impl Renderer {
    /// Language of an email whose recipient's language has no templates.
    pub const DEFAULT_LOCALE: &'static str = "en";

    /// Compiles the built-in templates.
    ///
    /// # Errors
    ///
    /// [`RenderError::Mjml`], [`RenderError::Translations`] or [`RenderError::Template`] if a built-in template
    /// is malformed.
    pub fn new() -> Result<Self, RenderError> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_formatter(format_value);
        // The debug report of an error would show the values of the email.
        environment.set_debug(false);

        let translations = Translations::new()?;
        environment.add_function("t", move |state: &State, message: &str| {
            translations.translate(state, message)
        });
        for (name, source) in TEXT_PARTS {
            environment.add_template(name, source)?;
        }
        for kind in MailKind::ALL {
            let Sources {
                subject,
                mjml,
                text,
            } = Sources::of(kind);
            environment.add_template_owned(subject_name(kind), subject)?;
            environment.add_template_owned(text_name(kind), text)?;
            environment.add_template_owned(html_name(kind), html_from_mjml(kind, mjml)?)?;
        }
        Ok(Self { environment })
    }

    /// The language with templates that serves a BCP 47 tag, for example `fr` for `fr-CA`, or `None` if
    /// there is none.
    #[must_use]
    pub fn match_locale(tag: &str) -> Option<&'static str> {
        translations::match_locale(tag)
    }

    /// Renders an email in the language that serves `locale`, a BCP 47 tag; in
    /// [`Self::DEFAULT_LOCALE`] if none does. A preview that must not fall back asks
    /// [`Self::match_locale`] first.
    ///
    /// # Errors
    ///
    /// [`RenderError::Value`] if a URL or the colour is malformed; [`RenderError::Template`] if a template
    /// names a variable or a message that does not exist.
    pub fn render(
        &self,
        kind: MailKind,
        locale: &str,
        values: &Values,
    ) -> Result<Rendered, RenderError> {
        let locale = Self::match_locale(locale).unwrap_or(Self::DEFAULT_LOCALE);
        let variables = values.variables(locale)?;
        let variables = Value::from(variables);
        let subject = self.fill(&subject_name(kind), variables.clone())?;
        let text = self.fill(&text_name(kind), variables.clone())?;
        let html = self.fill(
            &html_name(kind),
            context! { subject => subject.as_str(), ..variables },
        )?;
        Ok(Rendered {
            subject,
            html,
            text,
            locale: locale.to_owned(),
        })
    }

    fn fill(&self, template: &str, variables: impl Into<Value>) -> Result<String, Error> {
        self.environment.get_template(template)?.render(variables)
    }
}

fn subject_name(kind: MailKind) -> String {
    format!("{}/subject.txt", kind.as_str())
}

fn text_name(kind: MailKind) -> String {
    format!("{}/body.txt", kind.as_str())
}

/// minijinja escapes for HTML what is named `.html`.
fn html_name(kind: MailKind) -> String {
    format!("{}/body.html", kind.as_str())
}

/// Turns MJML into HTML; the `{{ }}` in it stay as they are.
fn html_from_mjml(kind: MailKind, mjml: &str) -> Result<String, RenderError> {
    let malformed = |reason: String| RenderError::Mjml {
        template: kind.as_str(),
        reason,
    };
    let parsed = mrml::parse(with_parts(mjml)).map_err(|error| malformed(error.to_string()))?;
    if let Some(warning) = parsed.warnings.first() {
        return Err(malformed(format!("{warning:?}")));
    }
    let options = RenderOptions {
        // Otherwise mrml may link web fonts: mail programs would fetch them, which tells who reads when.
        fonts: HashMap::new(),
        ..RenderOptions::default()
    };
    parsed
        .element
        .render(&options)
        .map_err(|error| malformed(error.to_string()))
}

/// Puts the shared parts in the place of their `mj-include`. mrml's own include renders a section or a
/// column without the width and padding that it has outside of one.
fn with_parts(mjml: &str) -> String {
    MJML_PARTS
        .iter()
        .fold(mjml.to_owned(), |mjml, (file, part)| {
            mjml.replace(&format!("<mj-include path=\"../parts/{file}\" />"), part)
        })
}

/// Writes a value into a template. Escapes for HTML as minijinja's own formatter does, but leaves `/`
/// alone: programs that look for links in the source of an email do not undo `&#x2f;`.
fn format_value(
    out: &mut Output<'_>,
    state: &mut State<'_, '_>,
    value: &Value,
) -> Result<(), Error> {
    if *state.auto_escape() != AutoEscape::Html || value.is_safe() {
        return minijinja::escape_formatter(out, state, value);
    }
    for character in value.to_string().chars() {
        match character {
            '<' => out.write_str("&lt;")?,
            '>' => out.write_str("&gt;")?,
            '&' => out.write_str("&amp;")?,
            '"' => out.write_str("&quot;")?,
            '\'' => out.write_str("&#x27;")?,
            other => out.write_char(other)?,
        }
    }
    Ok(())
}

/// Variables of a template by name.
type Variables = BTreeMap<&'static str, Value>;

#[cfg(test)]
mod tests;
