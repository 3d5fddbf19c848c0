//! How likely two entries of a client list are the same person.

use aws_lc_rs::digest;
use data_encoding::BASE64URL_NOPAD;
use time::Date;
use uuid::Uuid;

use super::name::{Likeness, PersonName};

/// Score from which entries of similar, not equal, name are shown.
const SHOWN_FROM: f64 = 0.6;

/// What entries are compared by.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Full name.
    pub name: PersonName,
    /// Email in canonical form.
    pub email: Option<String>,
    /// Birth date.
    pub birth_date: Option<Date>,
    /// Phone in E.164.
    pub phone: Option<String>,
}

/// What is known of an email.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmailVerdict {
    /// No email to check.
    NotGiven,
    /// Free.
    Available,
    /// An account of this organization has it.
    InOrganization(Uuid),
    /// A Person elsewhere on the platform has proved it.
    OnPlatform,
}

/// What a duplicate check finds.
#[derive(Debug, Clone)]
pub struct DuplicateReport {
    /// What is known of the email.
    pub email: EmailVerdict,
    /// Accounts of similar name, best score first.
    pub candidates: Vec<Candidate>,
    /// Whether there are more than are shown.
    pub more_candidates: bool,
    /// What to send back to go on in spite of the candidates; empty without any.
    pub acknowledgement: String,
}

/// How one field of two entries compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldComparison {
    /// Equal after normalization.
    Agrees,
    /// Close spelling, the same sound, or a nickname.
    Similar,
    /// Different.
    Differs,
    /// At least one side has no value.
    Missing,
}

/// An account that may be the same client.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The account.
    pub account_id: Uuid,
    /// How likely it is the same client, 0 to 1.
    pub score: f64,
    /// Given name.
    pub given_name: FieldComparison,
    /// Family name.
    pub family_name: FieldComparison,
    /// Email.
    pub email: FieldComparison,
    /// Birth date.
    pub birth_date: FieldComparison,
    /// Phone.
    pub phone: FieldComparison,
}

impl From<Likeness> for FieldComparison {
    fn from(likeness: Likeness) -> Self {
        match likeness {
            Likeness::Agrees => Self::Agrees,
            Likeness::Similar => Self::Similar,
            Likeness::Differs => Self::Differs,
        }
    }
}

/// Compares a new entry with an existing account. `None` when they are not alike enough to be shown; names
/// that are equal after normalization always are.
#[must_use]
pub fn compare(new: &Identity, account_id: Uuid, existing: &Identity) -> Option<Candidate> {
    let (given, family) = new.name.compare(&existing.name);
    let candidate = Candidate {
        account_id,
        score: 0.0,
        given_name: given.into(),
        family_name: family.into(),
        email: compare_values(new.email.as_ref(), existing.email.as_ref()),
        birth_date: compare_values(new.birth_date.as_ref(), existing.birth_date.as_ref()),
        phone: compare_values(new.phone.as_ref(), existing.phone.as_ref()),
    };
    let score = score(&candidate);
    let is_shown = new.name.key() == existing.name.key() || score >= SHOWN_FROM;
    is_shown.then_some(Candidate { score, ..candidate })
}

fn compare_values<T: PartialEq>(one: Option<&T>, other: Option<&T>) -> FieldComparison {
    match (one, other) {
        (Some(one), Some(other)) if one == other => FieldComparison::Agrees,
        (Some(_), Some(_)) => FieldComparison::Differs,
        (None, _) | (_, None) => FieldComparison::Missing,
    }
}

/// Names carry most of the score. A birth date tells namesakes apart better than a phone or an email, which
/// families share and people change.
fn score(candidate: &Candidate) -> f64 {
    let name = |comparison| match comparison {
        FieldComparison::Agrees => 0.42,
        FieldComparison::Similar => 0.34,
        FieldComparison::Differs | FieldComparison::Missing => 0.0,
    };
    let evidence = |comparison, agrees: f64, differs: f64| match comparison {
        FieldComparison::Agrees => agrees,
        FieldComparison::Differs => -differs,
        FieldComparison::Similar | FieldComparison::Missing => 0.0,
    };
    let score = name(candidate.given_name)
        + name(candidate.family_name)
        + evidence(candidate.birth_date, 0.12, 0.35)
        + evidence(candidate.phone, 0.1, 0.04)
        + evidence(candidate.email, 0.1, 0.04);
    score.clamp(0.0, 1.0)
}

/// What a caller sends back to go on in spite of `candidates`: bound to exactly these accounts of this
/// organization, so that a new candidate voids it. Empty without candidates.
#[must_use]
pub fn acknowledgement(organization_id: Uuid, candidates: &[Candidate]) -> String {
    if candidates.is_empty() {
        return String::new();
    }
    let mut ids: Vec<Uuid> = candidates
        .iter()
        .map(|candidate| candidate.account_id)
        .collect();
    ids.sort_unstable();
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"usher duplicate acknowledgement v1");
    context.update(organization_id.as_bytes());
    for id in ids {
        context.update(id.as_bytes());
    }
    BASE64URL_NOPAD.encode(context.finish().as_ref())
}

#[cfg(test)]
mod tests {
    use time::macros::date;

    use super::*;

    fn profile(given: &str, family: &str) -> Identity {
        Identity {
            name: PersonName {
                given: given.to_owned(),
                family: family.to_owned(),
            },
            email: None,
            birth_date: None,
            phone: None,
        }
    }

    fn born(profile: Identity, birth_date: Date) -> Identity {
        Identity {
            birth_date: Some(birth_date),
            ..profile
        }
    }

    #[test]
    fn equal_names_are_shown_even_when_all_else_differs() {
        let one = born(profile("José", "García"), date!(1980 - 01 - 01));
        let other = born(profile("JOSE", "Garcia"), date!(1999 - 12 - 31));
        let candidate = compare(&one, Uuid::nil(), &other).unwrap();
        assert_eq!(candidate.given_name, FieldComparison::Agrees);
        assert_eq!(candidate.birth_date, FieldComparison::Differs);
    }

    #[test]
    fn birth_dates_raise_and_lower_the_score_and_missing_ones_do_neither() {
        let new = born(profile("Ann", "Lee"), date!(1980 - 01 - 01));
        let score = |existing| compare(&new, Uuid::nil(), &existing).unwrap().score;
        let same = score(born(profile("Ann", "Lee"), date!(1980 - 01 - 01)));
        let unknown = score(profile("Ann", "Lee"));
        let other = score(born(profile("Ann", "Lee"), date!(1955 - 05 - 05)));
        assert!(
            same > unknown && unknown > other,
            "{same} {unknown} {other}"
        );
    }

    #[test]
    fn similar_names_of_different_age_are_not_shown() {
        let new = born(profile("Bill", "Smith"), date!(1980 - 01 - 01));
        let namesake = born(profile("William", "Smyth"), date!(1955 - 05 - 05));
        assert_eq!(compare(&new, Uuid::nil(), &namesake), None);
        assert!(compare(&new, Uuid::nil(), &profile("William", "Smyth")).is_some());
        assert_eq!(
            compare(&new, Uuid::nil(), &profile("Robert", "Jones")),
            None
        );
    }

    #[test]
    fn an_acknowledgement_is_bound_to_its_candidates() {
        let organization_id = Uuid::now_v7();
        let candidate = |account_id| Candidate {
            account_id,
            ..compare(&profile("A", "B"), account_id, &profile("A", "B")).unwrap()
        };
        let (one, other) = (candidate(Uuid::now_v7()), candidate(Uuid::now_v7()));
        let both = acknowledgement(organization_id, &[one.clone(), other.clone()]);
        assert_eq!(
            both,
            acknowledgement(organization_id, &[other, one.clone()])
        );
        assert_ne!(
            both,
            acknowledgement(organization_id, std::slice::from_ref(&one))
        );
        assert_ne!(both, acknowledgement(Uuid::now_v7(), &[one]));
        assert_eq!(acknowledgement(organization_id, &[]), "");
    }
}
