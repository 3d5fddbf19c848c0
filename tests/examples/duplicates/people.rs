//! People with the names and birth dates that people have: a few very common names and many rare ones, families, double
//! names, and too many born on the first of January.

use account_svc::domain::{duplicate::Identity, name::PersonName};
use anyhow::Context as _;
use time::Date;
use usher_tests::random::Random;

/// The names of each language.
const NAMES: &str = include_str!("names.txt");

/// Shares of people, in per cent.
const OF_A_FAMILY_SEEN_BEFORE: f64 = 10.0;
const WITH_A_RARE_FAMILY_NAME: f64 = 45.0;
const WITH_A_RARE_GIVEN_NAME: f64 = 10.0;
const WITH_TWO_GIVEN_NAMES: f64 = 6.0;
const WITH_TWO_FAMILY_NAMES: f64 = 3.0;
const WITH_TWO_FAMILY_NAMES_IN_SPANISH: f64 = 60.0;
const BORN_ON_THE_FIRST_OF_JANUARY: f64 = 3.0;
const WITHOUT_BIRTH_DATE: f64 = 5.0;

struct Language {
    is_spanish: bool,
    given: Vec<&'static str>,
    family: Vec<&'static str>,
    stems: Vec<&'static str>,
    ends: Vec<&'static str>,
}

/// Draws people.
pub(crate) struct People {
    languages: Vec<(Language, usize)>,
    /// Given names and what people are called instead.
    pub(crate) nicknames: Vec<(&'static str, &'static str)>,
}

impl People {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let mut people = Self {
            languages: Vec::new(),
            nicknames: Vec::new(),
        };
        for section in NAMES.split("\n[").skip(1) {
            let (head, body) = section.split_once(']').context("a section has a head")?;
            if let Some((language, weight)) = head.split_once(' ') {
                let list = |name: &str| -> anyhow::Result<Vec<&'static str>> {
                    let line = body.lines().find_map(|line| line.strip_prefix(name));
                    let names = line.with_context(|| format!("{head} has no {name}"))?;
                    Ok(names.split_whitespace().collect())
                };
                let language = Language {
                    is_spanish: language == "es",
                    given: list("given:")?,
                    family: list("family:")?,
                    stems: list("stems:")?,
                    ends: list("ends:")?,
                };
                people.languages.push((language, weight.parse()?));
            } else {
                let pairs = body.trim().split("; ");
                people.nicknames = pairs.filter_map(|pair| pair.split_once(' ')).collect();
            }
        }
        Ok(people)
    }

    /// One person, who may be of the family of `before`.
    pub(crate) fn person(&self, random: &mut Random, before: Option<&Identity>) -> Identity {
        let language = random.weighted(&self.languages);
        let family = match before {
            Some(before) if random.happens(OF_A_FAMILY_SEEN_BEFORE) => before.name.family.clone(),
            _ => language.family_name(random),
        };
        Identity {
            name: PersonName {
                given: language.given_name(random),
                family,
            },
            email: None,
            birth_date: (!random.happens(WITHOUT_BIRTH_DATE)).then(|| birth_date(random)),
            phone: None,
        }
    }

    /// The family name of somebody else.
    pub(crate) fn family_name(&self, random: &mut Random) -> String {
        random.weighted(&self.languages).family_name(random)
    }
}

impl Language {
    fn given_name(&self, random: &mut Random) -> String {
        let one = if random.happens(WITH_A_RARE_GIVEN_NAME) {
            // The vowel at the end makes a name of it.
            let end = random.one_of(&["a", "o", "an", "el", "in", "ia", "is"]);
            format!("{}{end}", random.one_of(&self.stems).trim_end_matches('e'))
        } else {
            (*random.common(&self.given)).to_owned()
        };
        if random.happens(WITH_TWO_GIVEN_NAMES) {
            format!("{one} {}", random.common(&self.given))
        } else {
            one
        }
    }

    fn family_name(&self, random: &mut Random) -> String {
        let percent = if self.is_spanish {
            WITH_TWO_FAMILY_NAMES_IN_SPANISH
        } else {
            WITH_TWO_FAMILY_NAMES
        };
        let separator = if self.is_spanish { " " } else { "-" };
        let one = self.simple_family_name(random);
        if random.happens(percent) {
            format!("{one}{separator}{}", self.simple_family_name(random))
        } else {
            one
        }
    }

    fn simple_family_name(&self, random: &mut Random) -> String {
        if random.happens(WITH_A_RARE_FAMILY_NAME) {
            let (stem, end) = (random.one_of(&self.stems), random.one_of(&self.ends));
            // Some are rarer still.
            let middle = random.one_of(&["", "", "er", "en", "a"]);
            format!("{stem}{middle}{end}")
        } else {
            random.common(&self.family).replace('_', " ")
        }
    }
}

fn birth_date(random: &mut Random) -> Date {
    let year = 1935 + i32::try_from(random.below(40) + random.below(40)).unwrap_or_default();
    let ordinal = if random.happens(BORN_ON_THE_FIRST_OF_JANUARY) {
        1
    } else {
        1 + u16::try_from(random.below(365)).unwrap_or_default()
    };
    // Every year has as many days.
    Date::from_ordinal_date(year, ordinal).unwrap_or(Date::MIN)
}
