//! Measures how well duplicates are found: precision, recall and F1 by threshold and by kind of error, with names
//! alone and with birth dates, when all entries are duplicates and when few are.
//!
//! `duplicates [SET.tsv ...]`: without arguments with people that it makes up; else with sets of your own. A set has a
//! row per record: `R` for an account or `Q` for an entry, an id that duplicates have in common, given name, family
//! name and birth date as YYYYMMDD, or nothing; separated by tabs.

#![expect(clippy::print_stdout, reason = "the report of a command")]

mod errors;
mod index;
mod measure;
mod people;

use std::{collections::HashMap, time::Instant};

use account_svc::domain::{
    duplicate::{DuplicateRules, Identity},
    name::PersonName,
};
use anyhow::Context as _;
use errors::enter_again;
use index::Index;
use measure::{Entry, Set, measure, ratio};
use people::People;
use time::{Date, Month};
use usher_tests::random::Random;

/// Sizes of made-up organizations.
const SIZES: [usize; 3] = [1_000, 5_000, 100_000];
/// Entries that are compared with each.
const ENTRIES: usize = 5_000;
/// Shares of the entries that are duplicates, in per cent.
const DUPLICATES: [f64; 2] = [100.0, 5.0];
/// Shares of duplicates that are expected.
const EXPECTED: [f64; 3] = [0.05, 0.2, 0.6];
const THRESHOLDS: [f64; 7] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9];

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1).peekable();
    if arguments.peek().is_some() {
        for path in arguments {
            let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
            let set = parse(&text).with_context(|| format!("in {path}"))?;
            report(&path, set, false);
        }
        return Ok(());
    }
    for accounts in SIZES {
        for duplicates in DUPLICATES {
            let title = format!(
                "{accounts} made-up accounts, {duplicates} % of the entries are duplicates"
            );
            report(&title, make_up(accounts, duplicates)?, true);
        }
    }
    Ok(())
}

fn make_up(accounts: usize, duplicates: f64) -> anyhow::Result<Set> {
    let people = People::new()?;
    // Another seed for each, so that nothing fits one set alone.
    let mut random = Random::new(accounts as u64);
    let mut set = Set {
        accounts: Vec::with_capacity(accounts),
        entries: Vec::with_capacity(ENTRIES),
    };
    for _ in 0..accounts {
        let person = people.person(&mut random, set.accounts.last());
        set.accounts.push(person);
    }
    for _ in 0..ENTRIES {
        let entry = if random.happens(duplicates) {
            let original = random.below(accounts);
            let (identity, name_error, date_error) =
                enter_again(&set.accounts[original], &people, &mut random);
            Entry {
                identity,
                original: Some(original),
                errors: vec![
                    format!("name {name_error:?}"),
                    format!("date {date_error:?}"),
                ],
            }
        } else {
            // Staff make as many mistakes with a name that they enter for the first time.
            let stranger = people.person(&mut random, None);
            Entry {
                identity: enter_again(&stranger, &people, &mut random).0,
                original: None,
                errors: Vec::new(),
            }
        };
        set.entries.push(entry);
    }
    Ok(set)
}

fn parse(text: &str) -> anyhow::Result<Set> {
    let mut numbers = HashMap::new();
    let mut set = Set {
        accounts: Vec::new(),
        entries: Vec::new(),
    };
    let mut entries = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [kind @ ("R" | "Q"), id, given, family, birth_date] = fields[..] else {
            anyhow::bail!(
                "line {}: five fields, of which the first is R or Q",
                number + 1
            );
        };
        let identity = Identity {
            name: PersonName {
                given: given.to_owned(),
                family: family.to_owned(),
            },
            email: None,
            birth_date: parse_date(birth_date),
            phone: None,
        };
        if kind == "R" {
            numbers.insert(id, set.accounts.len());
            set.accounts.push(identity);
        } else {
            entries.push((id, identity));
        }
    }
    set.entries = entries
        .into_iter()
        .map(|(id, identity)| Entry {
            identity,
            original: numbers.get(id).copied(),
            errors: Vec::new(),
        })
        .collect();
    Ok(set)
}

/// A date as YYYYMMDD; `None` for what is none.
fn parse_date(text: &str) -> Option<Date> {
    let part = |range: std::ops::Range<usize>| text.get(range)?.parse::<u16>().ok();
    let month = Month::try_from(u8::try_from(part(4..6)?).ok()?).ok()?;
    let day = u8::try_from(part(6..8)?).ok()?;
    Date::from_calendar_date(part(0..4)?.into(), month, day).ok()
}

fn report(title: &str, mut set: Set, by_error: bool) {
    println!("\n# {title}");
    for with_dates in [true, false] {
        if !with_dates {
            let accounts = set.accounts.iter_mut();
            let entries = set.entries.iter_mut().map(|entry| &mut entry.identity);
            accounts
                .chain(entries)
                .for_each(|identity| identity.birth_date = None);
        }
        report_fields(&set, with_dates, by_error);
    }
}

fn report_fields(set: &Set, with_dates: bool, by_error: bool) {
    let start = Instant::now();
    let index = Index::new(&set.accounts);
    let index_time = start.elapsed();
    let fields = if with_dates {
        "names and birth dates"
    } else {
        "names alone"
    };
    println!("\n## {fields}\n");
    for expected_share in EXPECTED {
        let default = default_threshold(expected_share);
        let rules = DuplicateRules {
            threshold: default,
            expected_share,
        };
        let outcome = measure(&index, &set.entries, rules);
        let best = outcome.best();
        let at_default = outcome.at(default);
        println!(
            "expected {expected_share}: best F1 {:.4} at {:.3} (precision {:.3}, recall {:.3}); default {default}: F1 \
             {:.4}, {:.4} less; shown: precision {:.3}, recall {:.3}; {}",
            best.f1,
            best.threshold,
            best.precision,
            best.recall,
            at_default.f1,
            best.f1 - at_default.f1,
            outcome.shown.precision,
            outcome.shown.recall,
            THRESHOLDS
                .map(|threshold| format!("{threshold}:{:.3}", outcome.at(threshold).f1))
                .join(" "),
        );
        if expected_share
            .total_cmp(&DuplicateRules::FRONT_DESK.expected_share)
            .is_eq()
        {
            println!(
                "  originals among candidates {:.4}, candidates {:.1}, keys {:.2} indexed in {:?}, ranked in {:?}, at most {:?}",
                ratio(outcome.reached, outcome.duplicates()),
                ratio(outcome.candidates, set.entries.len()),
                ratio(index.keys, set.accounts.len()),
                index_time / u32::try_from(set.accounts.len()).unwrap_or(u32::MAX),
                outcome.rank_time / u32::try_from(set.entries.len()).unwrap_or(u32::MAX),
                outcome.slowest,
            );
            if by_error {
                for (error, count, recall) in outcome.by_error(default) {
                    println!("  {error:<22} {count:>5}  recall {recall:.3}");
                }
            }
        }
    }
}

/// The default that goes with an expected share.
fn default_threshold(expected_share: f64) -> f64 {
    if expected_share < DuplicateRules::IMPORT.expected_share {
        DuplicateRules::FRONT_DESK.threshold
    } else {
        DuplicateRules::IMPORT.threshold
    }
}
