//! From messages to types that cannot be wrong. Every fault of a request is named in one answer.

use std::collections::BTreeMap;

use time::Date;
use usher_proto::account::v1 as proto;
use usher_runtime::error::{FieldParser, parse_uuid};

use crate::{
    domain::{
        birth_date, duplicate,
        email::Email,
        link::LinkRules,
        locale,
        name::{self, PersonName},
        organization::{self, DAY, OrganizationProfile, Reminder},
        phone,
        profile::{Address, Contact, Member, ProfileChange},
        text,
    },
    error::Error,
    idempotency::RequestKey,
};

/// Most characters of a word about something: a label, a relation, a plan.
const WORD: usize = 64;

/// The key of a mutating call; `None` if the caller sent no `request_id`. `request` is the encoded request
/// without passwords.
pub(super) fn request_key(
    parser: &mut FieldParser,
    request_id: &str,
    method: &str,
    request: &[u8],
) -> Option<RequestKey> {
    if request_id.is_empty() {
        return None;
    }
    parser
        .take("request_id", parse_uuid(request_id))
        .map(|request_id| RequestKey::new(request_id, method, request))
}

/// The version that an `etag` stands for; `None` if it is empty.
pub(super) fn etag(etag: &str) -> Result<Option<i64>, Error> {
    if etag.is_empty() {
        return Ok(None);
    }
    // Whatever is not an etag of ours is not the current one either.
    etag.trim_matches('"')
        .parse()
        .map(Some)
        .map_err(|_| Error::EtagMismatch)
}

/// The fields that an update names; each must be one of `accepted`.
pub(super) fn update_mask(
    parser: &mut FieldParser,
    mask: Option<prost_types::FieldMask>,
    accepted: &[&str],
) -> Vec<String> {
    let paths = mask.unwrap_or_default().paths;
    if paths.is_empty() {
        parser.refuse(
            "update_mask",
            format!("required: name the fields to change, of {}", accepted.join(", ")),
        );
    }
    for path in paths.iter().filter(|path| !accepted.contains(&path.as_str())) {
        parser.refuse(
            "update_mask",
            format!("{path:?} cannot be changed; accepted: {}", accepted.join(", ")),
        );
    }
    paths
}

/// A value of an enum that was not made up. `0` stands for the default.
pub(super) fn known_enum<T: TryFrom<i32>>(
    parser: &mut FieldParser,
    field: &str,
    value: i32,
    accepted: &str,
) -> Option<T> {
    parser.take(
        field,
        T::try_from(value).map_err(|_| format!("{value} is not a value of this enum; accepted: {accepted}")),
    )
}

/// Names of the states to filter by, without their prefix.
pub(super) fn states<T: TryFrom<i32>>(
    parser: &mut FieldParser,
    field: &str,
    states: &[i32],
    name: impl Fn(T) -> &'static str,
    prefix: &str,
) -> Vec<String> {
    let mut names = Vec::new();
    for (index, &state) in states.iter().enumerate() {
        let field = format!("{field}[{index}]");
        match T::try_from(state) {
            Ok(value) if state != 0 => {
                let name = name(value);
                names.push(name.strip_prefix(prefix).unwrap_or(name).to_owned());
            }
            _ => parser.refuse(field, format!("{state} is not a state to filter by")),
        }
    }
    names
}

/// The fields of an account that `wanted` names, from a message in `account`.
pub(super) fn profile_change(
    parser: &mut FieldParser,
    account: proto::Account,
    wanted: impl Fn(&str) -> bool,
) -> ProfileChange {
    let mut change = ProfileChange::default();
    if wanted("given_name") {
        change.given_name = parser.take("account.given_name", name::part(&account.given_name));
    }
    if wanted("family_name") {
        change.family_name = parser.take("account.family_name", name::part(&account.family_name));
    }
    if wanted("email") {
        change.email = Some(
            account
                .email
                .and_then(|email| parser.take("account.email", Email::parse(&email))),
        );
    }
    if wanted("birth_date") {
        change.birth_date = Some(optional_date(parser, "account.birth_date", account.birth_date));
    }
    if wanted("phone") {
        change.phone = Some(
            account
                .phone
                .and_then(|number| parser.take("account.phone", phone::parse(&number))),
        );
    }
    if wanted("members") {
        change.members = list(parser, "account.members", account.members, 50, member);
    }
    if wanted("addresses") {
        change.addresses = list(parser, "account.addresses", account.addresses, 20, address);
    }
    if wanted("contacts") {
        change.contacts = list(parser, "account.contacts", account.contacts, 20, contact);
    }
    if wanted("plan") {
        change.plan = parser.take("account.plan", text::optional(&account.plan, WORD));
    }
    if wanted("assigned_staff") {
        change.assigned_staff = parser.take(
            "account.assigned_staff",
            text::optional(&account.assigned_staff, 128),
        );
    }
    if wanted("attributes") {
        change.attributes = attributes(parser, account.attributes.into_iter().collect());
    }
    if wanted("locale") {
        change.locale = parser.take("account.locale", locale::parse(&account.locale));
    }
    change
}

/// The identity that CheckDuplicates asks about.
pub(super) fn identity(
    parser: &mut FieldParser,
    request: &proto::CheckDuplicatesRequest,
) -> Option<duplicate::Profile> {
    let given = parser.take("given_name", name::part(&request.given_name));
    let family = parser.take("family_name", name::part(&request.family_name));
    let email = request
        .email
        .as_deref()
        .and_then(|email| parser.take("email", Email::parse(email)));
    let birth_date = optional_date(parser, "birth_date", request.birth_date);
    let phone = request
        .phone
        .as_deref()
        .and_then(|number| parser.take("phone", phone::parse(number)));
    Some(duplicate::Profile {
        name: PersonName {
            given: given?,
            family: family?,
        },
        email: email.map(|email| email.canonical().to_owned()),
        birth_date,
        phone,
    })
}

fn optional_date(parser: &mut FieldParser, field: &str, date: Option<proto::Date>) -> Option<Date> {
    date.and_then(|date| {
        parser.take(
            field,
            birth_date::from_parts(date.year, date.month, date.day),
        )
    })
}

fn list<M, T>(
    parser: &mut FieldParser,
    field: &str,
    messages: Vec<M>,
    max: usize,
    item: impl Fn(&mut FieldParser, &str, M) -> Option<T>,
) -> Option<Vec<T>> {
    if messages.len() > max {
        parser.refuse(field, format!("has {} entries; at most {max} are accepted", messages.len()));
        return None;
    }
    messages
        .into_iter()
        .enumerate()
        .map(|(index, message)| item(parser, &format!("{field}[{index}]"), message))
        .collect()
}

fn member(parser: &mut FieldParser, field: &str, member: proto::Member) -> Option<Member> {
    let given_name = parser.take(&format!("{field}.given_name"), name::part(&member.given_name));
    let family_name = parser.take(&format!("{field}.family_name"), name::part(&member.family_name));
    let relation = parser.take(
        &format!("{field}.relation"),
        text::optional(&member.relation, WORD),
    );
    let birth_date = optional_date(parser, &format!("{field}.birth_date"), member.birth_date);
    Some(Member {
        given_name: given_name?,
        family_name: family_name?,
        birth_date,
        relation: relation?,
    })
}

fn address(parser: &mut FieldParser, field: &str, address: proto::Address) -> Option<Address> {
    let mut text = |name: &str, value: &str, max: usize| {
        parser.take(&format!("{field}.{name}"), text::optional(value, max))
    };
    let label = text("label", &address.label, WORD);
    let locality = text("locality", &address.locality, 100);
    let region = text("region", &address.region, 100);
    let postal_code = text("postal_code", &address.postal_code, 20);
    let lines = list(
        parser,
        &format!("{field}.lines"),
        address.lines,
        5,
        |parser, field, line| parser.take(field, text::required(&line, 200)),
    );
    let country_code = address.country_code.trim().to_ascii_uppercase();
    if country_code.len() != 2 || !country_code.bytes().all(|byte| byte.is_ascii_uppercase()) {
        parser.refuse(
            format!("{field}.country_code"),
            "expected two letters of ISO 3166-1, for example `CA`",
        );
    }
    Some(Address {
        label: label?,
        lines: lines?,
        locality: locality?,
        region: region?,
        postal_code: postal_code?,
        country_code,
    })
}

fn contact(parser: &mut FieldParser, field: &str, contact: proto::Contact) -> Option<Contact> {
    let name = parser.take(&format!("{field}.name"), text::required(&contact.name, 200));
    let relation = parser.take(
        &format!("{field}.relation"),
        text::optional(&contact.relation, WORD),
    );
    let email = contact
        .email
        .and_then(|email| parser.take(&format!("{field}.email"), Email::parse(&email)));
    let phone = contact
        .phone
        .and_then(|number| parser.take(&format!("{field}.phone"), phone::parse(&number)));
    Some(Contact {
        name: name?,
        relation: relation?,
        email: email.map(|email| email.address().to_owned()),
        phone,
    })
}

fn attributes(
    parser: &mut FieldParser,
    attributes: BTreeMap<String, String>,
) -> Option<BTreeMap<String, String>> {
    if attributes.len() > 64 {
        parser.refuse(
            "account.attributes",
            format!("has {} entries; at most 64 are accepted", attributes.len()),
        );
        return None;
    }
    attributes
        .into_iter()
        .map(|(key, value)| {
            let key = parser.take("account.attributes", text::required(&key, WORD))?;
            let field = format!("account.attributes[{key:?}]");
            let value = parser.take(&field, text::optional(&value, 1000))?;
            Some((key, value))
        })
        .collect()
}

/// The fields of an organization that `wanted` names, put over `base`.
pub(super) fn organization_profile(
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
        brand(parser, organization.brand.unwrap_or_default(), &mut profile, links);
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
    brand: proto::Brand,
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
        .take("organization.brand.color", organization::color(&brand.color))
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

fn reminder(
    parser: &mut FieldParser,
    field: &str,
    reminder: proto::Reminder,
) -> Option<Reminder> {
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
