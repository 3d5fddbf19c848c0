//! How the full names of two entries compare: given and family name in order, swapped, or divided elsewhere.

use super::{
    Nearness,
    evidence::Evidence,
    frequency::Frequencies,
    keys,
    name::{FAMILY, GIVEN, Name, Weights},
};
use crate::domain::name::PersonName;

/// Share of entries with given and family name swapped.
const SWAPPED: f64 = 0.03;
/// Likelihood that given and family name are divided elsewhere: `Anna` `Maria Rossi`.
const DIVIDED_ELSEWHERE: f64 = 0.002;

/// How much less likely two whose suffixes differ, such as `Jr.` and `Sr.`, are one person: father and son have one
/// name.
const OTHER_GENERATION: f64 = 0.05;

/// A full name, prepared to be compared.
pub(super) struct FullName {
    pub given: Name,
    pub family: Name,
    /// Equal names have one of these in common.
    whole: Vec<Vec<u8>>,
}

impl FullName {
    pub fn new(name: &PersonName) -> Self {
        let (given, family) = (Name::new(&name.given), Name::new(&name.family));
        Self {
            whole: keys::whole_names(&given.folded, &family.folded),
            given,
            family,
        }
    }

    /// Equal after normalization.
    fn equals(&self, other: &Self) -> bool {
        self.whole.iter().any(|whole| other.whole.contains(whole))
            && !self.is_of_other_generation(other)
    }

    fn is_of_other_generation(&self, other: &Self) -> bool {
        let generation = |name: &Self| {
            let of_given = name.given.folded.generation();
            name.family.folded.generation().or(of_given)
        };
        match (generation(self), generation(other)) {
            (Some(one), Some(other)) => one != other,
            // A missing suffix says nothing.
            (None, _) | (_, None) => false,
        }
    }
}

/// The name of a new entry, and how common it is.
pub(super) struct EnteredName<'a> {
    name: &'a FullName,
    /// Shares of people whose given name is written as the given name, and so on.
    given_as_given: f64,
    family_as_family: f64,
    family_as_given: f64,
    given_as_family: f64,
}

impl<'a> EnteredName<'a> {
    /// `others` are the names that it is compared with.
    pub fn new(name: &'a FullName, others: &[&FullName], frequencies: &Frequencies) -> Self {
        let given = distinct(others.iter().map(|other| &other.given));
        let family = distinct(others.iter().map(|other| &other.family));
        let as_given = |name: &Name| {
            let share = |name: &Name| frequencies.of_given_name(name.hash);
            written_share(&GIVEN, name, &given, share)
        };
        let as_family = |name: &Name| {
            let share = |name: &Name| frequencies.of_family_name(name.hash);
            written_share(&FAMILY, name, &family, share)
        };
        Self {
            given_as_given: as_given(&name.given),
            family_as_family: as_family(&name.family),
            family_as_given: as_given(&name.family),
            given_as_family: as_family(&name.given),
            name,
        }
    }

    pub fn compare(&self, other: &FullName) -> NameComparison {
        let mut comparison = self.compare_both(other);
        if self.name.is_of_other_generation(other) {
            comparison.family.ratio *= OTHER_GENERATION;
            comparison.ratio *= OTHER_GENERATION;
        }
        comparison
    }

    fn compare_both(&self, other: &FullName) -> NameComparison {
        let FullName { given, family, .. } = self.name;
        let in_order = (
            GIVEN.compare(given, &other.given, self.given_as_given),
            FAMILY.compare(family, &other.family, self.family_as_family),
        );
        let swapped = (
            FAMILY.compare(given, &other.family, self.given_as_family),
            GIVEN.compare(family, &other.given, self.family_as_given),
        );
        // How many people have these names in this order, and in the other.
        let in_order_share = (1.0 - SWAPPED) * self.given_as_given * self.family_as_family;
        let swapped_share = SWAPPED * self.family_as_given * self.given_as_family;
        let share = in_order_share + swapped_share;
        let likelihood =
            |share, (given, family): &(Evidence, Evidence)| share * given.ratio * family.ratio;
        let in_order_likelihood = likelihood(in_order_share, &in_order);
        let swapped_likelihood = likelihood(swapped_share, &swapped);
        let are_swapped = swapped_likelihood > in_order_likelihood;
        let ratio = (in_order_likelihood + swapped_likelihood) / share;
        let divided_ratio = DIVIDED_ELSEWHERE / share;
        let is_equal = self.name.equals(other);
        if is_equal && divided_ratio > ratio {
            let half = Evidence {
                nearness: Nearness::PartOfName,
                ratio: divided_ratio.sqrt(),
            };
            return NameComparison {
                given: half,
                family: half,
                given_share: known(given, self.given_as_given),
                family_share: known(family, self.family_as_family),
                are_swapped: false,
                is_equal,
                ratio: divided_ratio,
            };
        }
        let (given_evidence, family_evidence) = if are_swapped { swapped } else { in_order };
        let (given_share, family_share) = if are_swapped {
            (self.given_as_family, self.family_as_given)
        } else {
            (self.given_as_given, self.family_as_family)
        };
        NameComparison {
            given: given_evidence,
            family: family_evidence,
            given_share: known(given, given_share),
            family_share: known(family, family_share),
            are_swapped,
            is_equal,
            ratio,
        }
    }
}

/// How the names of an account compare with those of an entry.
pub(super) struct NameComparison {
    pub given: Evidence,
    pub family: Evidence,
    /// Shares of people whose names are written as those of the entry, in the roles in which they were compared.
    pub given_share: Option<f64>,
    pub family_share: Option<f64>,
    pub are_swapped: bool,
    pub is_equal: bool,
    /// How much likelier the names of the entry are for this client than for anyone, in whatever order.
    pub ratio: f64,
}

/// The share of people whose name is written as `written`: of those who have this name, and of those with one of the
/// `near` names who would have it written so. Most who are entered as `Jonh` are called John, which is common.
fn written_share(
    weights: &Weights,
    written: &Name,
    near: &[&Name],
    share: impl Fn(&Name) -> f64,
) -> f64 {
    if written.folded.is_missing() {
        return 1.0;
    }
    let others = near.iter().filter(|meant| meant.hash != written.hash);
    let altered: f64 = others
        .map(|meant| share(meant) * weights.likelihood(written, meant))
        .sum();
    share(written) + altered
}

/// Each name once, in an order that does not depend on that of `names`: sums of floating-point numbers do.
fn distinct<'a>(names: impl Iterator<Item = &'a Name>) -> Vec<&'a Name> {
    let mut names: Vec<&Name> = names.collect();
    names.sort_unstable_by_key(|name| name.hash);
    names.dedup_by_key(|name| name.hash);
    names
}

/// The share of people with a name; a filler is nobody's.
fn known(name: &Name, share: f64) -> Option<f64> {
    (!name.folded.is_missing()).then_some(share)
}
