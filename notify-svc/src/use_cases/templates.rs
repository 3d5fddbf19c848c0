//! Showing what emails look like.

use crate::{
    domain::MailKind,
    error::Error,
    render::{Rendered, Renderer, Values},
};

/// A link that leads nowhere.
const SAMPLE_TOKEN: &str = "sample-token-of-a-preview";

/// Renders a template as an email would be; its link leads nowhere. `kind` is `None` for a kind that has no
/// template yet.
///
/// # Errors
/// If there is no such template in this language, or a value cannot be used in an email.
pub fn preview(
    renderer: &Renderer,
    kind: Option<MailKind>,
    locale: &str,
    mut values: Values,
) -> Result<Rendered, Error> {
    let kind = kind.ok_or(Error::TemplateNotFound)?;
    if Renderer::match_locale(locale).is_none() {
        return Err(Error::TemplateNotFound);
    }
    values.link = kind.link(&values.portal_url, SAMPLE_TOKEN);
    Ok(renderer.render(kind, locale, &values)?)
}
