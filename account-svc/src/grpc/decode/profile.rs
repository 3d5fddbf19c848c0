//! What staff enter about a client.

use std::collections::BTreeMap;

use time::Date;
use usher_proto::account::v1 as proto;
use usher_runtime::fields::FieldParser;

use crate::domain::{
    birth_date,
    duplicate::Identity,
    email::Email,
    locale,
    name::{self, PersonName},
    phone,
    profile::{Address, Contact, Member, ProfileChange},
    text,
};

/// Most characters of a word about something: a label, a relation, a plan.
const WORD: usize = 64;

/// The fields of an account that `wanted` names, from a message in `account`.
pub(in crate::grpc) fn profile_change(
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
        change.birth_date = Some(optional_date(
            parser,
            "account.birth_date",
            account.birth_date,
        ));
    }
    if wanted("phone") {
        change.phone = Some(
            account
                .phone
                .and_then(|number| parser.take("account.phone", phone::parse(&number))),
        );
    }
    if wanted("members") {
        change.members = parser.list(
            "account.members",
            account.members,
            50,
            |parser, field, message| member(parser, field, &message),
        );
    }
    if wanted("addresses") {
        change.addresses = parser.list("account.addresses", account.addresses, 20, address);
    }
    if wanted("contacts") {
        change.contacts = parser.list("account.contacts", account.contacts, 20, contact);
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
        change.attributes = attributes(parser, account.attributes);
    }
    if wanted("locale") {
        change.locale = parser.take("account.locale", locale::parse(&account.locale));
    }
    change
}

/// The identity that `CheckDuplicates` asks about.
pub(in crate::grpc) fn identity(
    parser: &mut FieldParser,
    request: &proto::CheckDuplicatesRequest,
) -> Option<Identity> {
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
    Some(Identity {
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

fn member(parser: &mut FieldParser, field: &str, member: &proto::Member) -> Option<Member> {
    let given_name = parser.take(
        &format!("{field}.given_name"),
        name::part(&member.given_name),
    );
    let family_name = parser.take(
        &format!("{field}.family_name"),
        name::part(&member.family_name),
    );
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
    let lines = parser.list(
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
    let name = parser.take(&format!("{field}.name"), name::full(&contact.name));
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
    let mut parsed = BTreeMap::new();
    for (key, value) in attributes {
        let key = text::required(&key, WORD).map_err(|error| format!("a key: {error}"));
        let key = parser.take("account.attributes", key)?;
        let field = format!("account.attributes[{key:?}]");
        let value = parser.take(&field, text::optional(&value, 1000))?;
        if parsed.insert(key, value).is_some() {
            parser.refuse(
                field,
                "two keys are equal once they are trimmed and normalized; leave one out",
            );
        }
    }
    Some(parsed)
}
