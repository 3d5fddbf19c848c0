//! What an email says: checked and made safe for every place where it is shown.

use minijinja::Value;
use time::macros::datetime;
use time::{OffsetDateTime, UtcOffset};

use super::{RenderError, Variables};

/// The values of one email. Not `Debug`: they hold a usable link and personal data.
#[derive(Clone)]
pub struct Values {
    /// Given name of the recipient.
    pub given_name: String,
    /// Family name of the recipient.
    pub family_name: String,
    /// Name of the organization as shown to people.
    pub organization_name: String,
    /// The organization's portal, an absolute `http` or `https` URL.
    pub portal_url: String,
    /// The link with the token, an absolute `http` or `https` URL.
    pub link: String,
    /// Logo of the organization, an absolute `https` URL (`http` on loopback); `None` shows the name.
    pub logo_url: Option<String>,
    /// Brand colour as `#rrggbb`; `None` means [`Self::DEFAULT_COLOR`].
    pub color: Option<String>,
    /// When the link stops working.
    pub expire_time: OffsetDateTime,
    /// The form that the recipient is asked to fill in, if any.
    pub form_id: Option<String>,
}

/// Variables that translations may use; templates may use [`Values::variables`].
pub(super) const TEXT_VARIABLES: &[&str] = &[
    "full_name",
    "organization_name",
    "day",
    "month",
    "year",
    "hour",
    "minute",
];

impl Values {
    /// Brand colour of an organization that names none.
    pub const DEFAULT_COLOR: &'static str = "#1f4e79";

    /// Made-up values, for previews.
    #[must_use]
    pub fn sample() -> Self {
        Self {
            given_name: "Ada".to_owned(),
            family_name: "Lovelace".to_owned(),
            organization_name: "Harbour Clinic".to_owned(),
            portal_url: "https://portal.example.org".to_owned(),
            link: "https://portal.example.org/activate?token=sample".to_owned(),
            logo_url: None,
            color: None,
            expire_time: datetime!(2026-12-15 14:30 UTC),
            form_id: None,
        }
    }

    /// The variables of the templates.
    pub(super) fn variables(&self, locale: &'static str) -> Result<Variables, RenderError> {
        let color = match self.color.as_deref() {
            Some(color) => Color::parse(color)?,
            None => Color::parse(Self::DEFAULT_COLOR)?,
        };
        let expiry = self.expire_time.to_offset(UtcOffset::UTC);
        let full_name = format!("{} {}", self.given_name, self.family_name);
        Ok(Variables::from([
            ("locale", locale.into()),
            ("full_name", inline(&full_name).into()),
            ("organization_name", inline(&self.organization_name).into()),
            ("portal_url", url("portal_url", &self.portal_url)?),
            ("link", url("link", &self.link)?),
            (
                "logo_url",
                match self.logo_url.as_deref() {
                    Some(logo_url) => url("logo_url", logo_url)?,
                    None => Value::from(()),
                },
            ),
            ("form_id", self.form_id.as_deref().map(inline).into()),
            ("color", color.hex().into()),
            ("button_text_color", color.text_color().into()),
            ("day", expiry.day().into()),
            ("month", u8::from(expiry.month()).into()),
            // Not as numbers: translations would group or shorten them.
            ("year", expiry.year().to_string().into()),
            ("hour", format!("{:02}", expiry.hour()).into()),
            ("minute", format!("{:02}", expiry.minute()).into()),
        ]))
    }
}

/// Makes a name safe inside a line of text: control characters, which would break the subject line,
/// become spaces; marks that turn the direction of what follows go; a name from right to left is isolated,
/// so that it does not pull the text around it along.
fn inline(name: &str) -> String {
    const FIRST_STRONG_ISOLATE: char = '\u{2068}';
    const POP_DIRECTIONAL_ISOLATE: char = '\u{2069}';
    let name: String = name
        .chars()
        .filter(|character| !is_direction_override(*character))
        .map(|character| {
            if character.is_control() || matches!(character, '\u{2028}' | '\u{2029}') {
                ' '
            } else {
                character
            }
        })
        .collect();
    let name = name.trim();
    if name.chars().any(is_right_to_left) {
        format!("{FIRST_STRONG_ISOLATE}{name}{POP_DIRECTIONAL_ISOLATE}")
    } else {
        name.to_owned()
    }
}

/// Embeddings, overrides and isolates of the bidirectional algorithm.
fn is_direction_override(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The blocks of the scripts that run from right to left: Hebrew, Arabic and their neighbours.
fn is_right_to_left(character: char) -> bool {
    matches!(
        character,
        '\u{0590}'..='\u{08ff}'
            | '\u{fb1d}'..='\u{fdff}'
            | '\u{fe70}'..='\u{feff}'
            | '\u{10800}'..='\u{10fff}'
            | '\u{1e800}'..='\u{1efff}'
    )
}

/// A URL that may stand in an attribute and in text. The organization's URLs were checked when they were
/// set; this keeps another scheme or a line break out of an email all the same.
fn url(field: &'static str, text: &str) -> Result<Value, RenderError> {
    let has_scheme = text.starts_with("https://") || text.starts_with("http://");
    let is_clean = !text
        .chars()
        .any(|character| character.is_control() || character.is_whitespace());
    if has_scheme && is_clean {
        Ok(text.into())
    } else {
        Err(RenderError::Value {
            field,
            expected: "an absolute http or https URL without spaces",
        })
    }
}

/// A brand colour in sRGB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Color([u8; 3]);

impl Color {
    fn parse(text: &str) -> Result<Self, RenderError> {
        let digits = text
            .strip_prefix('#')
            .filter(|digits| digits.len() == 6 && digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let number = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let Some(number) = number else {
            return Err(RenderError::Value {
                field: "color",
                expected: "a colour as #rrggbb",
            });
        };
        let [_, red, green, blue] = number.to_be_bytes();
        Ok(Self([red, green, blue]))
    }

    fn hex(self) -> String {
        let Self([red, green, blue]) = self;
        format!("#{red:02x}{green:02x}{blue:02x}")
    }

    /// Black or white, whichever is easier to read on this colour: at least 4.58 to 1, above the 4.5 that
    /// WCAG 2.2 AA asks for.
    fn text_color(self) -> &'static str {
        let luminance = self.luminance();
        let contrast_with_white = 1.05 / (luminance + 0.05);
        let contrast_with_black = (luminance + 0.05) / 0.05;
        if contrast_with_white >= contrast_with_black {
            "#ffffff"
        } else {
            "#000000"
        }
    }

    /// Relative luminance as WCAG 2.2 defines it, 0 to 1.
    fn luminance(self) -> f64 {
        let [red, green, blue] = self.0.map(|channel| {
            let channel = f64::from(channel) / 255.0;
            if channel <= 0.04045 {
                channel / 12.92
            } else {
                ((channel + 0.055) / 1.055).powf(2.4)
            }
        });
        0.2126 * red + 0.7152 * green + 0.0722 * blue
    }
}

#[cfg(test)]
mod tests {
    use super::Color;

    #[test]
    fn text_on_a_brand_colour_is_readable() {
        for red in (0..=255).step_by(5) {
            for green in (0..=255).step_by(5) {
                for blue in (0..=255).step_by(5) {
                    let color = Color([red, green, blue]);
                    let text = Color::parse(color.text_color()).unwrap();
                    let (a, b) = (color.luminance(), text.luminance());
                    let contrast = (a.max(b) + 0.05) / (a.min(b) + 0.05);
                    assert!(contrast >= 4.5, "{color:?}: {contrast}");
                }
            }
        }
    }
}
