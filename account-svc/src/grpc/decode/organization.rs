//! What an organization sets for itself.

use std::ops::RangeInclusive;

use usher_proto::account::v1 as proto;
use usher_runtime::fields::FieldParser;

use crate::domain::{
    duplicate::DuplicateRules,
    email::Email,
    link::LinkRules,
    locale, name,
    organization::{
        self, DAY, DEFAULT_INVITATION_LIFETIME, DEFAULT_LINK_PROMPT_LIFETIME, DEFAULT_LOCALE,
        DEFAULT_MINIMUM_AGE, DEFAULT_REINVITE_AFTER, DEFAULT_TIME_ZONE, OrganizationChange,
        Reminder,
    },
    text,
};

/// The fields of an organization that `wanted` names. One that is named and not given gets its default.
pub(in crate::grpc) fn organization_change(
    fields: &mut FieldParser,
    organization: proto::Organization,
    links: &LinkRules,
    wanted: impl Fn(&str) -> bool,
) -> OrganizationChange {
    let mut change = OrganizationChange::default();
    if wanted("display_name") {
        change.display_name = fields.take(
            "organization.display_name",
            name::organization(&organization.display_name, 200),
        );
    }
    if wanted("default_locale") {
        let tag = Some(organization.default_locale.as_str()).filter(|tag| !tag.is_empty());
        change.default_locale = fields.take(
            "organization.default_locale",
            locale::parse(tag.unwrap_or(DEFAULT_LOCALE)),
        );
    }
    if wanted("portal_url") {
        change.portal_url = fields.take(
            "organization.portal_url",
            links.portal_url(&organization.portal_url),
        );
    }
    if wanted("sender_name") {
        change.sender_name = fields.take(
            "organization.sender_name",
            name::optional_organization(&organization.sender_name, 100),
        );
    }
    if wanted("reply_to") {
        change.reply_to = match organization.reply_to.as_str() {
            "" => Some(String::new()),
            address => fields
                .take("organization.reply_to", Email::parse(address))
                .map(|email| email.address().to_owned()),
        };
    }
    if wanted("brand") {
        brand(
            fields,
            &organization.brand.unwrap_or_default(),
            links,
            &mut change,
        );
    }
    if wanted("allowed_return_origins") {
        change.allowed_return_origins = fields.list(
            "organization.allowed_return_origins",
            organization.allowed_return_origins,
            20,
            |fields, field, origin| fields.take(field, links.origin(&origin)),
        );
    }
    let settings = organization.settings.unwrap_or_default();
    settings_change(fields, settings, &mut change, |field| {
        wanted("settings") || wanted(&format!("settings.{field}"))
    });
    change
}

fn brand(
    fields: &mut FieldParser,
    brand: &proto::Brand,
    links: &LinkRules,
    change: &mut OrganizationChange,
) {
    let logo_url = match brand.logo_url.as_str() {
        "" => Ok(String::new()),
        url => links.logo_url(url),
    };
    change.logo_url = fields.take("organization.brand.logo_url", logo_url);
    change.color = fields.take(
        "organization.brand.color",
        organization::color(&brand.color),
    );
}

fn settings_change(
    fields: &mut FieldParser,
    settings: proto::OrganizationSettings,
    change: &mut OrganizationChange,
    wanted: impl Fn(&str) -> bool,
) {
    if wanted("minimum_age") {
        let age = settings
            .minimum_age
            .map_or(Ok(DEFAULT_MINIMUM_AGE), i32::try_from)
            .ok()
            .filter(|age| *age <= 120)
            .ok_or("expected 0 to 120 years");
        change.minimum_age = fields.take("organization.settings.minimum_age", age);
    }
    if wanted("time_zone") {
        let time_zone = settings
            .time_zone
            .unwrap_or_else(|| DEFAULT_TIME_ZONE.to_owned());
        // Whether it exists is for the database to say, which knows the zones.
        change.time_zone = fields.take(
            "organization.settings.time_zone",
            text::required(&time_zone, 64),
        );
    }
    let mut seconds = |field, value, default, bounds| {
        wanted(field)
            .then(|| duration(fields, field, value, default, bounds))
            .flatten()
    };
    change.invitation_lifetime_seconds = seconds(
        "invitation_lifetime",
        settings.invitation_lifetime,
        DEFAULT_INVITATION_LIFETIME,
        60 * 60..=365 * DAY,
    );
    change.reinvite_after_seconds = seconds(
        "reinvite_after",
        settings.reinvite_after,
        DEFAULT_REINVITE_AFTER,
        0..=365 * DAY,
    );
    change.link_prompt_lifetime_seconds = seconds(
        "link_prompt_lifetime",
        settings.link_prompt_lifetime,
        DEFAULT_LINK_PROMPT_LIFETIME,
        DAY..=3650 * DAY,
    );
    if wanted("reminders") {
        change.reminders = fields.list(
            "organization.settings.reminders",
            settings.reminders,
            5,
            reminder,
        );
    }
    for (field, rules, defaults, changed) in [
        (
            "front_desk_duplicates",
            settings.front_desk_duplicates,
            DuplicateRules::FRONT_DESK,
            &mut change.front_desk_duplicates,
        ),
        (
            "import_duplicates",
            settings.import_duplicates,
            DuplicateRules::IMPORT,
            &mut change.import_duplicates,
        ),
    ] {
        if wanted(field) {
            *changed = duplicate_rules(fields, field, rules.unwrap_or_default(), defaults);
        }
    }
}

fn duplicate_rules(
    fields: &mut FieldParser,
    setting: &str,
    rules: proto::DuplicateRules,
    defaults: DuplicateRules,
) -> Option<DuplicateRules> {
    let mut share = |field, value: Option<f64>, default, bounds: RangeInclusive<f64>| {
        let value = value.unwrap_or(default);
        // What is not a number lies in no bounds.
        let in_bounds = bounds
            .contains(&value)
            .then_some(value)
            .ok_or_else(|| format!("expected {} to {}", bounds.start(), bounds.end()));
        fields.take(
            &format!("organization.settings.{setting}.{field}"),
            in_bounds,
        )
    };
    let threshold = share(
        "threshold",
        rules.threshold,
        defaults.threshold,
        DuplicateRules::THRESHOLDS,
    );
    let expected_share = share(
        "expected_share",
        rules.expected_share,
        defaults.expected_share,
        DuplicateRules::EXPECTED_SHARES,
    );
    Some(DuplicateRules {
        threshold: threshold?,
        expected_share: expected_share?,
    })
}

fn duration(
    fields: &mut FieldParser,
    field: &str,
    value: Option<prost_types::Duration>,
    default: i64,
    bounds: RangeInclusive<i64>,
) -> Option<i64> {
    let seconds = value.map_or(default, |value| value.seconds);
    let in_bounds = bounds
        .contains(&seconds)
        .then_some(seconds)
        .ok_or_else(|| format!("expected {}s to {}s", bounds.start(), bounds.end()));
    fields.take(&format!("organization.settings.{field}"), in_bounds)
}

fn reminder(fields: &mut FieldParser, field: &str, reminder: proto::Reminder) -> Option<Reminder> {
    use proto::reminder::Moment;
    let longest = 365 * DAY;
    match reminder.moment {
        Some(Moment::AfterSent(after)) if (DAY..=longest).contains(&after.seconds) => {
            Some(Reminder::AfterSentSeconds(after.seconds))
        }
        Some(Moment::BeforeExpiry(before)) if (60 * 60..=longest).contains(&before.seconds) => {
            Some(Reminder::BeforeExpirySeconds(before.seconds))
        }
        _ => {
            fields.refuse(
                field,
                format!(
                    "expected after_sent of 86400s to {longest}s, or before_expiry of 3600s to {longest}s"
                ),
            );
            None
        }
    }
}
