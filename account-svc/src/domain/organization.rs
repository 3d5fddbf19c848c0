//! Organizations: what their clients see of them, and the settings that their rules follow.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

/// An organization.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Organization {
    /// Identity.
    pub organization_id: Uuid,
    /// Short name for URLs and logs.
    pub slug: String,
    /// What may be changed.
    #[serde(flatten)]
    pub profile: OrganizationProfile,
    /// Counts the changes.
    pub version: i64,
    /// When it was created.
    pub create_time: OffsetDateTime,
    /// When it was last changed.
    pub update_time: OffsetDateTime,
}

/// What may be changed of an organization.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrganizationProfile {
    /// Name as shown to people.
    pub display_name: String,
    /// Language of emails where an account names none.
    pub default_locale: String,
    /// Base of every link in an email, without a trailing slash.
    pub portal_url: String,
    /// Origins besides the portal's that links may return to.
    pub allowed_return_origins: Vec<String>,
    /// Name in the From header; empty means the display name.
    pub sender_name: String,
    /// Reply-To address; empty means none.
    pub reply_to: String,
    /// Logo; empty means none.
    pub logo_url: String,
    /// Brand colour; empty means the default.
    pub color: String,
    /// Least age in years of an account's holder.
    pub minimum_age: i32,
    /// How long an invitation can be used.
    pub invitation_lifetime_seconds: i64,
    /// How long a bulk invitation leaves out whoever was invited.
    pub reinvite_after_seconds: i64,
    /// How long a link prompt stays open.
    pub link_prompt_lifetime_seconds: i64,
    /// When reminders go out.
    pub reminders: Vec<Reminder>,
}

/// One reminder of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reminder {
    /// This long after the invitation was sent.
    AfterSentSeconds(i64),
    /// This long before the invitation expires.
    BeforeExpirySeconds(i64),
}

/// Seconds of a day.
pub const DAY: i64 = 24 * 60 * 60;

/// Why a slug was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected 2 to 63 lower-case letters, digits and inner hyphens")]
pub struct SlugError;

/// A short name: 2 to 63 lower-case letters, digits and inner hyphens, like a DNS label (RFC 1035, section
/// 2.3.1), so that it can be part of a host name.
///
/// # Errors
/// If it is anything else.
pub fn slug(text: &str) -> Result<String, SlugError> {
    let is_slug = (2..=63).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-');
    if is_slug {
        Ok(text.to_owned())
    } else {
        Err(SlugError)
    }
}

/// Why a colour was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected `#rrggbb`, for example `#1f4e79`, or nothing")]
pub struct ColorError;

/// A colour as `#rrggbb` in lower case; empty stays empty.
///
/// # Errors
/// If it is anything else: it goes into the style sheets of emails.
pub fn color(text: &str) -> Result<String, ColorError> {
    let is_color = match text.strip_prefix('#') {
        Some(digits) => digits.len() == 6 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => text.is_empty(),
    };
    if is_color {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(ColorError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_dns_labels() {
        assert!(slug("acme-2").is_ok());
        for text in ["", "a", "Acme", "-acme", "acme-", "acme_2", &"a".repeat(64)] {
            assert_eq!(slug(text), Err(SlugError), "{text}");
        }
    }

    #[test]
    fn colors_cannot_leave_their_style() {
        assert_eq!(color("#1F4E79").unwrap(), "#1f4e79");
        assert_eq!(color("").unwrap(), "");
        for text in ["red", "#fff", "#1f4e79;x", "#1f4e7g"] {
            assert_eq!(color(text), Err(ColorError), "{text}");
        }
    }
}
