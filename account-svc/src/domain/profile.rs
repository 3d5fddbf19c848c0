//! What staff enter about a client.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::Date;
use usher_runtime::hidden_debug;

use super::{duplicate::Identity, email::Email, name::PersonName};

/// Most bytes of the texts of one profile together, in UTF-8: lists of accounts have to be read in messages of a few
/// MiB.
pub const MAX_TEXT_BYTES: usize = 64 * 1024;

/// The profile of an account.
#[derive(Clone, PartialEq, Eq)]
pub struct Profile {
    /// Full name of the holder.
    pub name: PersonName,
    /// Email of the holder; none means that nobody can log in.
    pub email: Option<Email>,
    /// Birth date of the holder; none counts as adult.
    pub birth_date: Option<Date>,
    /// Phone in E.164.
    pub phone: Option<String>,
    /// Dependants.
    pub members: Vec<Member>,
    /// Postal addresses.
    pub addresses: Vec<Address>,
    /// Other people to talk to.
    pub contacts: Vec<Contact>,
    /// Plan, for example `starter`.
    pub plan: String,
    /// The member of staff who looks after this client.
    pub assigned_staff: String,
    /// Free attributes.
    pub attributes: BTreeMap<String, String>,
    /// Language for emails; empty means the organization's.
    pub locale: String,
}

/// A dependant of the holder.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Given name.
    pub given_name: String,
    /// Family name.
    pub family_name: String,
    /// Birth date.
    pub birth_date: Option<Date>,
    /// Relation to the holder.
    pub relation: String,
}

/// A postal address.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// What it is for.
    pub label: String,
    /// Street lines.
    pub lines: Vec<String>,
    /// Town.
    pub locality: String,
    /// State or region.
    pub region: String,
    /// Postal code.
    pub postal_code: String,
    /// Country as two letters of ISO 3166-1.
    pub country_code: String,
}

/// A further contact person.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// Full name.
    pub name: String,
    /// Relation to the holder.
    pub relation: String,
    /// Email address, with the domain in A-label form.
    pub email: Option<String>,
    /// Phone in E.164.
    pub phone: Option<String>,
}

/// New values for some fields of a profile; `None` leaves a field as it is, and `Some(None)` clears it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ProfileChange {
    /// Given name.
    pub given_name: Option<String>,
    /// Family name.
    pub family_name: Option<String>,
    /// Email.
    pub email: Option<Option<Email>>,
    /// Birth date.
    pub birth_date: Option<Option<Date>>,
    /// Phone.
    pub phone: Option<Option<String>>,
    /// Dependants.
    pub members: Option<Vec<Member>>,
    /// Postal addresses.
    pub addresses: Option<Vec<Address>>,
    /// Other people to talk to.
    pub contacts: Option<Vec<Contact>>,
    /// Plan.
    pub plan: Option<String>,
    /// Assigned staff.
    pub assigned_staff: Option<String>,
    /// Free attributes.
    pub attributes: Option<BTreeMap<String, String>>,
    /// Language for emails.
    pub locale: Option<String>,
}

// They hold personal data.
hidden_debug!(Profile, Member, Address, Contact, ProfileChange);

impl ProfileChange {
    /// The profile of a new account; `None` without both names.
    #[must_use]
    pub fn into_profile(self) -> Option<Profile> {
        let name = PersonName {
            given: self.given_name?,
            family: self.family_name?,
        };
        Some(Profile {
            name,
            email: self.email.flatten(),
            birth_date: self.birth_date.flatten(),
            phone: self.phone.flatten(),
            members: self.members.unwrap_or_default(),
            addresses: self.addresses.unwrap_or_default(),
            contacts: self.contacts.unwrap_or_default(),
            plan: self.plan.unwrap_or_default(),
            assigned_staff: self.assigned_staff.unwrap_or_default(),
            attributes: self.attributes.unwrap_or_default(),
            locale: self.locale.unwrap_or_default(),
        })
    }
}

impl Profile {
    /// The profile with `change` applied.
    #[must_use]
    pub fn changed(self, change: ProfileChange) -> Self {
        Self {
            name: PersonName {
                given: change.given_name.unwrap_or(self.name.given),
                family: change.family_name.unwrap_or(self.name.family),
            },
            email: change.email.unwrap_or(self.email),
            birth_date: change.birth_date.unwrap_or(self.birth_date),
            phone: change.phone.unwrap_or(self.phone),
            members: change.members.unwrap_or(self.members),
            addresses: change.addresses.unwrap_or(self.addresses),
            contacts: change.contacts.unwrap_or(self.contacts),
            plan: change.plan.unwrap_or(self.plan),
            assigned_staff: change.assigned_staff.unwrap_or(self.assigned_staff),
            attributes: change.attributes.unwrap_or(self.attributes),
            locale: change.locale.unwrap_or(self.locale),
        }
    }

    /// Bytes of all texts together.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        // Each field is named, so that a new one cannot be forgotten.
        let Self {
            name,
            email,
            birth_date: _,
            phone,
            members,
            addresses,
            contacts,
            plan,
            assigned_staff,
            attributes,
            locale,
        } = self;
        let attributes = attributes
            .iter()
            .map(|(key, value)| key.len() + value.len());
        let lists = members
            .iter()
            .map(Member::text_bytes)
            .chain(addresses.iter().map(Address::text_bytes))
            .chain(contacts.iter().map(Contact::text_bytes))
            .chain(attributes);
        let email = email.as_ref().map_or(0, |email| email.address().len());
        bytes(&[&name.given, &name.family, plan, assigned_staff, locale])
            + email
            + phone.as_ref().map_or(0, String::len)
            + lists.sum::<usize>()
    }

    /// What duplicates are found by.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity {
            name: self.name.clone(),
            email: self
                .email
                .as_ref()
                .map(|email| email.canonical().to_owned()),
            birth_date: self.birth_date,
            phone: self.phone.clone(),
        }
    }
}

impl Member {
    fn text_bytes(&self) -> usize {
        let Self {
            given_name,
            family_name,
            birth_date: _,
            relation,
        } = self;
        bytes(&[given_name, family_name, relation])
    }
}

impl Address {
    fn text_bytes(&self) -> usize {
        let Self {
            label,
            lines,
            locality,
            region,
            postal_code,
            country_code,
        } = self;
        let lines: usize = lines.iter().map(String::len).sum();
        bytes(&[label, locality, region, postal_code, country_code]) + lines
    }
}

impl Contact {
    fn text_bytes(&self) -> usize {
        let Self {
            name,
            relation,
            email,
            phone,
        } = self;
        let optional = [email, phone].into_iter().flatten().map(String::len);
        bytes(&[name, relation]) + optional.sum::<usize>()
    }
}

fn bytes(texts: &[&str]) -> usize {
    texts.iter().map(|text| text.len()).sum()
}
