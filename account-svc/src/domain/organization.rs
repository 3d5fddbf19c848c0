//! Organizations: what their clients see of them, and the settings that their rules follow.

use serde::{Deserialize, Serialize};
use time::{Date, OffsetDateTime};
use uuid::Uuid;

use super::duplicate::DuplicateRules;

/// An organization.
#[derive(Debug, Clone, PartialEq)]
pub struct Organization {
    /// Identity.
    pub organization_id: Uuid,
    /// Short name for URLs and logs.
    pub slug: String,
    /// What may be changed.
    pub profile: OrganizationProfile,
    /// The date where it is, at the moment at which it was read.
    pub today: Date,
    /// Counts the changes.
    pub version: i64,
    /// When it was created.
    pub create_time: OffsetDateTime,
    /// When it was last changed.
    pub update_time: OffsetDateTime,
}

/// What may be changed of an organization.
#[derive(Debug, Clone, PartialEq)]
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
    /// Where a day begins, for ages: a name of the IANA time zone database.
    pub time_zone: String,
    /// How long an invitation can be used.
    pub invitation_lifetime_seconds: i64,
    /// How long a bulk invitation leaves out whoever was invited.
    pub reinvite_after_seconds: i64,
    /// How long a link prompt stays open.
    pub link_prompt_lifetime_seconds: i64,
    /// When reminders go out.
    pub reminders: Vec<Reminder>,
    /// Which duplicates of entries from a front desk are shown.
    pub front_desk_duplicates: DuplicateRules,
    /// Which duplicates of imported entries are shown.
    pub import_duplicates: DuplicateRules,
}

/// New values for some of an organization's fields; `None` leaves a field as it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OrganizationChange {
    /// Name as shown to people.
    pub display_name: Option<String>,
    /// Language of emails where an account names none.
    pub default_locale: Option<String>,
    /// Base of every link in an email.
    pub portal_url: Option<String>,
    /// Origins besides the portal's that links may return to.
    pub allowed_return_origins: Option<Vec<String>>,
    /// Name in the From header.
    pub sender_name: Option<String>,
    /// Reply-To address.
    pub reply_to: Option<String>,
    /// Logo.
    pub logo_url: Option<String>,
    /// Brand colour.
    pub color: Option<String>,
    /// Least age in years of an account's holder.
    pub minimum_age: Option<i32>,
    /// Where a day begins.
    pub time_zone: Option<String>,
    /// How long an invitation can be used.
    pub invitation_lifetime_seconds: Option<i64>,
    /// How long a bulk invitation leaves out whoever was invited.
    pub reinvite_after_seconds: Option<i64>,
    /// How long a link prompt stays open.
    pub link_prompt_lifetime_seconds: Option<i64>,
    /// When reminders go out.
    pub reminders: Option<Vec<Reminder>>,
    /// Which duplicates of entries from a front desk are shown.
    pub front_desk_duplicates: Option<DuplicateRules>,
    /// Which duplicates of imported entries are shown.
    pub import_duplicates: Option<DuplicateRules>,
}

impl OrganizationChange {
    /// The profile of a new organization; `None` without a name and a portal. Fields that are not given get
    /// their defaults.
    #[must_use]
    pub fn into_profile(self) -> Option<OrganizationProfile> {
        let defaults = OrganizationProfile {
            display_name: self.display_name.clone()?,
            default_locale: DEFAULT_LOCALE.to_owned(),
            portal_url: self.portal_url.clone()?,
            allowed_return_origins: Vec::new(),
            sender_name: String::new(),
            reply_to: String::new(),
            logo_url: String::new(),
            color: String::new(),
            minimum_age: DEFAULT_MINIMUM_AGE,
            time_zone: DEFAULT_TIME_ZONE.to_owned(),
            invitation_lifetime_seconds: DEFAULT_INVITATION_LIFETIME,
            reinvite_after_seconds: DEFAULT_REINVITE_AFTER,
            link_prompt_lifetime_seconds: DEFAULT_LINK_PROMPT_LIFETIME,
            reminders: Vec::new(),
            front_desk_duplicates: DuplicateRules::FRONT_DESK,
            import_duplicates: DuplicateRules::IMPORT,
        };
        Some(defaults.changed(self))
    }
}

/// Where a new entry comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EntryMode {
    /// Typed for one client.
    #[default]
    FrontDesk,
    /// Part of a list that is taken over.
    Import,
}

impl OrganizationProfile {
    /// Which duplicates of an entry are shown.
    #[must_use]
    pub const fn duplicate_rules(&self, entry_mode: EntryMode) -> DuplicateRules {
        match entry_mode {
            EntryMode::FrontDesk => self.front_desk_duplicates,
            EntryMode::Import => self.import_duplicates,
        }
    }

    /// The profile with `change` applied.
    #[must_use]
    pub fn changed(self, change: OrganizationChange) -> Self {
        Self {
            display_name: change.display_name.unwrap_or(self.display_name),
            default_locale: change.default_locale.unwrap_or(self.default_locale),
            portal_url: change.portal_url.unwrap_or(self.portal_url),
            allowed_return_origins: change
                .allowed_return_origins
                .unwrap_or(self.allowed_return_origins),
            sender_name: change.sender_name.unwrap_or(self.sender_name),
            reply_to: change.reply_to.unwrap_or(self.reply_to),
            logo_url: change.logo_url.unwrap_or(self.logo_url),
            color: change.color.unwrap_or(self.color),
            minimum_age: change.minimum_age.unwrap_or(self.minimum_age),
            time_zone: change.time_zone.unwrap_or(self.time_zone),
            invitation_lifetime_seconds: change
                .invitation_lifetime_seconds
                .unwrap_or(self.invitation_lifetime_seconds),
            reinvite_after_seconds: change
                .reinvite_after_seconds
                .unwrap_or(self.reinvite_after_seconds),
            link_prompt_lifetime_seconds: change
                .link_prompt_lifetime_seconds
                .unwrap_or(self.link_prompt_lifetime_seconds),
            reminders: change.reminders.unwrap_or(self.reminders),
            front_desk_duplicates: change
                .front_desk_duplicates
                .unwrap_or(self.front_desk_duplicates),
            import_duplicates: change.import_duplicates.unwrap_or(self.import_duplicates),
        }
    }
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
/// Language of emails where an organization names none.
pub const DEFAULT_LOCALE: &str = "en";
/// Least age of an account's holder where an organization sets none.
pub const DEFAULT_MINIMUM_AGE: i32 = 18;
/// Where a day begins where an organization names no time zone.
pub const DEFAULT_TIME_ZONE: &str = "UTC";
/// Seconds that an invitation can be used where an organization sets none.
pub const DEFAULT_INVITATION_LIFETIME: i64 = 30 * DAY;
/// Seconds that a bulk invitation leaves out whoever was invited where an organization sets none.
pub const DEFAULT_REINVITE_AFTER: i64 = 10 * DAY;
/// Seconds that a link prompt stays open where an organization sets none.
pub const DEFAULT_LINK_PROMPT_LIFETIME: i64 = 730 * DAY;

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
