//! What an organization sets for itself.

use usher_proto::account::v1 as proto;
use usher_runtime::fields::FieldParser;

use super::list;
use crate::domain::{
    email::Email,
    link::LinkRules,
    locale,
    organization::{self, DAY, OrganizationProfile, Reminder},
    text,
};

/// The fields of an organization that `wanted` names, put over `base`.
pub(in crate::grpc) fn organization_profile(
    parser: &mut FieldParser,
    organization: proto::Organization,
    base: OrganizationProfile,
    links: LinkRules,
    wanted: impl Fn(&str) -> bool,
) -> OrganizationProfile {
    let mut profile = base;
    let mut put = |field: &str, slot: &mut String, value: Result<String, String>| {
        if wanted(field)
            && let Some(value) = parser.take(&format!("organization.{field}"), value)
        {
            *slot = value;
        }
    };
    let text = |result: Result<String, text::TextError>| result.map_err(|error| error.to_string());
    let locale = match organization.default_locale.as_str() {
        "" => Ok("en".to_owned()),
        tag => locale::parse(tag).map_err(|error| error.to_string()),
    };
    put(
        "display_name",
        &mut profile.display_name,
        text(text::required(&organization.display_name, 200)),
    );
    put("default_locale", &mut profile.default_locale, locale);
    put(
        "portal_url",
        &mut profile.portal_url,
        links
            .portal_url(&organization.portal_url)
            .map_err(|error| error.to_string()),
    );
    put(
        "sender_name",
        &mut profile.sender_name,
        text(text::optional(&organization.sender_name, 100)),
    );
    let reply_to = match organization.reply_to.as_str() {
        "" => Ok(String::new()),
        address => Email::parse(address)
            .map(|email| email.address().to_owned())
            .map_err(|error| error.to_string()),
    };
    put("reply_to", &mut profile.reply_to, reply_to);
    if wanted("brand") {
        brand(
            parser,
            &organization.brand.unwrap_or_default(),
            &mut profile,
            links,
        );
    }
    if wanted("allowed_return_origins") {
        let origins = list(
            parser,
            "organization.allowed_return_origins",
            organization.allowed_return_origins,
            20,
            |parser, field, origin| parser.take(field, links.origin(&origin)),
        );
        profile.allowed_return_origins = origins.unwrap_or_default();
    }
    settings(
        parser,
        organization.settings.unwrap_or_default(),
        &mut profile,
        wanted,
    );
    profile
}

fn brand(
    parser: &mut FieldParser,
    brand: &proto::Brand,
    profile: &mut OrganizationProfile,
    links: LinkRules,
) {
    let logo_url = match brand.logo_url.as_str() {
        "" => Ok(String::new()),
        url => links.logo_url(url),
    };
    profile.logo_url = parser
        .take("organization.brand.logo_url", logo_url)
        .unwrap_or_default();
    profile.color = parser
        .take(
            "organization.brand.color",
            organization::color(&brand.color),
        )
        .unwrap_or_default();
}

fn settings(
    parser: &mut FieldParser,
    settings: proto::OrganizationSettings,
    profile: &mut OrganizationProfile,
    wanted: impl Fn(&str) -> bool,
) {
    let wanted = |field: &str| wanted("settings") || wanted(&format!("settings.{field}"));
    if wanted("minimum_age") {
        let age = settings.minimum_age.unwrap_or(18);
        match i32::try_from(age) {
            Ok(age) if age <= 120 => profile.minimum_age = age,
            _ => parser.refuse(
                "organization.settings.minimum_age",
                "expected 0 to 120 years",
            ),
        }
    }
    let mut duration = |field: &str,
                        slot: &mut i64,
                        value: Option<prost_types::Duration>,
                        default: i64,
                        least: i64,
                        most: i64| {
        if !wanted(field) {
            return;
        }
        let seconds = value.map_or(default, |value| value.seconds);
        if (least..=most).contains(&seconds) {
            *slot = seconds;
        } else {
            parser.refuse(
                format!("organization.settings.{field}"),
                format!("expected {least}s to {most}s"),
            );
        }
    };
    duration(
        "invitation_lifetime",
        &mut profile.invitation_lifetime_seconds,
        settings.invitation_lifetime,
        30 * DAY,
        60 * 60,
        365 * DAY,
    );
    duration(
        "reinvite_after",
        &mut profile.reinvite_after_seconds,
        settings.reinvite_after,
        10 * DAY,
        0,
        365 * DAY,
    );
    duration(
        "link_prompt_lifetime",
        &mut profile.link_prompt_lifetime_seconds,
        settings.link_prompt_lifetime,
        730 * DAY,
        DAY,
        3650 * DAY,
    );
    if wanted("reminders") {
        profile.reminders = list(
            parser,
            "organization.settings.reminders",
            settings.reminders,
            5,
            reminder,
        )
        .unwrap_or_default();
    }
}

fn reminder(parser: &mut FieldParser, field: &str, reminder: proto::Reminder) -> Option<Reminder> {
    use proto::reminder::Moment;
    match reminder.moment {
        Some(Moment::AfterSent(after)) if after.seconds >= DAY => {
            Some(Reminder::AfterSentSeconds(after.seconds))
        }
        Some(Moment::BeforeExpiry(before)) if before.seconds >= 60 * 60 => {
            Some(Reminder::BeforeExpirySeconds(before.seconds))
        }
        _ => {
            parser.refuse(
                field,
                "expected after_sent of at least 86400s, or before_expiry of at least 3600s",
            );
            None
        }
    }
}
