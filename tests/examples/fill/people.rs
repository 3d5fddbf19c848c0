//! Invented clients. The same number always makes the same client.

use std::{collections::HashMap, sync::Arc};

use account_svc::domain::{
    duplicate::{Fingerprint, Identity, KEYS_VERSION, NameHashes},
    name::PersonName,
};
use time::{Date, Month};
use uuid::Uuid;

use crate::id;

/// Organizations apart from the large one.
pub const SMALL_ORGANIZATIONS: usize = 100;

const SMALL_SIZE: usize = 100;

const GIVEN: &str = "María Mohamed Anna José Wei Olga John Fatima Lukas Sofia Ali Emma Jan Chloé Søren Ivan \
    Yuki Aisha Luca Zoë Peter Ingrid Omar Nina Pavel Amélie Carlos Priya Tomás Hannah Björn Leila Marek Alice \
    Diego Mei Noah Elena Karim Julia Jürgen Ana Viktor Sara Hugo Nadia Oliver Irena Samuel Dana Elif Max Iman \
    Rosa Piotr Clara Felix Naomi Bruno Vera Arthur Lena Hassan Eva Simon Linh David Agnes Mateo Ruth Erik";

const FAMILY: &str = "García Nguyen Smith Müller Kim Ivanova Silva Rossi Ahmed Dubois Novák Johansson Cohen \
    O'Brien Yılmaz Kowalski Tanaka Singh López Jensen Popescu Horváth Martin Schmidt Papadopoulos Wang Hansen \
    Öztürk Fernández Virtanen De\u{a0}Vries Petrov Łukaszewski Andersson Moreau Weber Costa Sato Mbeki Haddad";

const SYLLABLES: [&str; 24] = [
    "ba", "cor", "den", "el", "far", "gri", "hol", "ing", "ka", "lan", "mor", "nes", "ost", "per",
    "qui", "ros", "sten", "tor", "ul", "ver", "wick", "yor", "zan", "berg",
];

/// Family names apart from the common ones.
const RARE_NAMES: usize = 24 * 24 * 24;

/// One account with all that hangs on it.
pub struct Client {
    number: usize,
    organization_id: Uuid,
    /// Seconds since it was created.
    age: u64,
    name: Arc<Name>,
    state: State,
}

struct Name {
    person: PersonName,
    hashes: NameHashes,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Managed,
    NotInvited,
    Invited,
    Expired,
    ShareRequested,
    ShareDeclined,
    Active,
    Closed,
}

/// The id of an organization; 0 is the large one.
pub fn organization_id(index: usize) -> Uuid {
    Uuid::from_u64_pair(0x0190_0000_0000_7000, 0x8000_0000_0000_0000 | index as u64)
}

/// The clients of all organizations.
pub fn clients(large: usize) -> impl Iterator<Item = Client> {
    let mut names: HashMap<(usize, usize), Arc<Name>> = HashMap::new();
    let total = large + SMALL_ORGANIZATIONS * SMALL_SIZE;
    (0..total).map(move |number| {
        let organization = number
            .checked_sub(large)
            .map_or(0, |rest| 1 + rest / SMALL_SIZE);
        let given = skewed(number, 1, GIVEN.split_whitespace().count());
        let family = skewed(number, 2, FAMILY.split(' ').count() + RARE_NAMES);
        let name = names
            .entry((given, family))
            .or_insert_with(|| Arc::new(name(given, family)));
        Client {
            number,
            organization_id: organization_id(organization),
            // Over two years, the newest last.
            age: 63_072_000 - (number as u64 * 63_000_000 / total as u64),
            name: Arc::clone(name),
            state: state(number),
        }
    })
}

/// A pseudo-random number below 2^32 (splitmix64).
fn random(number: usize, kind: u64) -> u64 {
    let mut mixed = (number as u64)
        .wrapping_mul(8)
        .wrapping_add(kind)
        .wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    (mixed ^ mixed >> 31) >> 32
}

/// A number below `count`, small ones far more often, as with names.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small numbers"
)]
fn skewed(number: usize, kind: u64, count: usize) -> usize {
    let even = random(number, kind) as f64 / 4_294_967_296.0;
    (even.powi(3) * count as f64) as usize
}

fn name(given: usize, family: usize) -> Name {
    let given = GIVEN
        .split_whitespace()
        .nth(given)
        .unwrap_or_default()
        .to_owned();
    let common: Vec<&str> = FAMILY.split(' ').filter(|name| !name.is_empty()).collect();
    let family = common.get(family).map_or_else(
        || {
            let rare = family - common.len();
            let syllable = |place: usize| SYLLABLES[rare / place % SYLLABLES.len()];
            let name = format!("{}{}{}", syllable(1), syllable(24), syllable(576));
            name[..1].to_uppercase() + &name[1..]
        },
        |name| (*name).to_owned(),
    );
    let person = PersonName { given, family };
    let identity = Identity {
        name: person,
        email: None,
        birth_date: None,
        phone: None,
    };
    Name {
        hashes: Fingerprint::new(&identity).name_hashes,
        person: identity.name,
    }
}

/// Of 10,000: what a client list looks like after two years.
fn state(number: usize) -> State {
    match random(number, 3) % 10_000 {
        0..2_000 => State::Managed,
        2_000..3_000 => State::NotInvited,
        3_000..5_500 => State::Invited,
        5_500..7_500 => State::Expired,
        7_500..7_700 => State::ShareRequested,
        // Rare, so that a list of them has to find a needle.
        7_700..7_702 => State::ShareDeclined,
        7_702..7_900 => State::Closed,
        _ => State::Active,
    }
}

impl Client {
    fn account_id(&self) -> Uuid {
        id(self.age, 1, self.number)
    }

    fn email(&self) -> Option<String> {
        let number = self.number;
        (self.state != State::Managed).then(|| format!("client{number}@mail.example"))
    }

    fn invitation_id(&self) -> Option<Uuid> {
        (!matches!(self.state, State::Managed | State::NotInvited))
            .then(|| id(self.age.saturating_sub(60), 2, self.number))
    }

    fn person_id(&self) -> Option<Uuid> {
        (self.state == State::Active).then(|| id(self.age.saturating_sub(600), 3, self.number))
    }

    /// A row of `persons`.
    pub fn person_row(&self) -> Option<String> {
        let person_id = self.person_id()?;
        let email = self.email()?;
        Some(format!("{person_id}\t{email}\n"))
    }

    /// A row of `accounts`.
    pub fn account_row(&self) -> String {
        let null = || "\\N".to_owned();
        let text = |id: Option<Uuid>| id.map_or_else(null, |id| id.to_string());
        let email = self.email().unwrap_or_else(null);
        let Name { person, hashes } = &*self.name;
        let PersonName { given, family } = person;
        let number = |hash: Option<i64>| hash.map_or_else(null, |hash| hash.to_string());
        let birth_date = self.birth_date();
        let keys = self.keys().iter().map(i64::to_string).collect::<Vec<_>>();
        let keys = keys.join(",");
        let activated = if self.state == State::Active {
            "2026-01-01"
        } else {
            "\\N"
        };
        let closed = if self.state == State::Closed {
            "2026-01-01"
        } else {
            "\\N"
        };
        format!(
            "{}\t{}\t{given}\t{family}\t{email}\t{email}\t{birth_date}\t[]\t[]\t[]\tstarter\tstaff\t{{}}\ten\t\
             {}\t{}\t{{{keys}}}\t{KEYS_VERSION}\t{}\t{}\t{activated}\t{closed}\t2025-06-01\n",
            self.organization_id,
            self.account_id(),
            number(hashes.given),
            number(hashes.family),
            text(self.invitation_id()),
            text(self.person_id()),
        )
    }

    /// What it is found by: closed accounts by nothing.
    fn keys(&self) -> Vec<i64> {
        if self.state == State::Closed {
            return Vec::new();
        }
        let identity = Identity {
            name: self.name.person.clone(),
            email: self.email(),
            birth_date: Some(self.birth_date()),
            phone: None,
        };
        Fingerprint::new(&identity).blocking_keys
    }

    /// Rows of `duplicate_keys`.
    pub fn key_rows(&self) -> String {
        let (organization_id, account_id) = (self.organization_id, self.account_id());
        let keys = self.keys().into_iter();
        let rows = keys.map(|key| format!("{organization_id}\t{key}\t{account_id}\n"));
        rows.collect::<Vec<String>>().concat()
    }

    /// One of 60 years and all days but the last of a month.
    fn birth_date(&self) -> Date {
        let [year, month, day] = [(4, 60), (5, 12), (6, 28)].map(|(kind, count)| {
            u8::try_from(random(self.number, kind) % count).unwrap_or_default()
        });
        Month::try_from(1 + month)
            .and_then(|month| Date::from_calendar_date(1940 + i32::from(year), month, 1 + day))
            .unwrap_or(Date::MIN)
    }

    /// A row of `invitations`.
    pub fn invitation_row(&self) -> Option<String> {
        let (invitation_id, email) = (self.invitation_id()?, self.email()?);
        let kind = match self.state {
            State::ShareRequested | State::ShareDeclined => "SHARE_REQUEST",
            _ => "ACTIVATION",
        };
        let expires = if self.state == State::Expired {
            "2026-02-01"
        } else {
            "2036-01-01"
        };
        let (end_state, end_time) = match self.state {
            State::ShareDeclined => ("DECLINED", "2026-01-01"),
            State::Active => ("ACCEPTED", "2026-01-01"),
            State::Closed => ("REVOKED", "2026-01-01"),
            _ => ("\\N", "\\N"),
        };
        Some(format!(
            "{}\t{invitation_id}\t{}\t{kind}\t{email}\t{email}\ten\tstaff\t\t\tSENT\t{expires}\t{end_state}\t\
             {end_time}\t2025-06-01\n",
            self.organization_id,
            self.account_id(),
        ))
    }
}
