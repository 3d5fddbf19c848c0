//! How the full names of two entries compare: given and family name in order, swapped, or divided elsewhere.

use super::{
    Nearness,
    evidence::Evidence,
    frequency::Frequencies,
    name::{FAMILY, GIVEN, Name, Resemblance},
};
use crate::domain::name::{FoldedName, PersonName, Whole};

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
    /// Equal names have one that equals one of the other's.
    wholes: Vec<Whole>,
    generation: Option<u8>,
}

impl FullName {
    pub fn new(name: &PersonName) -> Self {
        let name = FoldedName::new(name);
        Self {
            wholes: name.wholes(),
            generation: name.generation(),
            given: Name::new(name.given),
            family: Name::new(name.family),
        }
    }

    /// How the name of an entry may come from that of an account.
    pub fn resemblances(&self, account: &Self) -> Resemblances {
        Resemblances {
            given: GIVEN.resemblance(&self.given, &account.given),
            family: FAMILY.resemblance(&self.family, &account.family),
            given_as_family: FAMILY.resemblance(&self.given, &account.family),
            family_as_given: GIVEN.resemblance(&self.family, &account.given),
            are_equal: self.equals(account),
            are_of_other_generations: self.is_of_other_generation(account),
        }
    }

    /// Equal after normalization.
    fn equals(&self, other: &Self) -> bool {
        let equals = |one: &Whole| other.wholes.iter().any(|other| one.equals(other));
        self.wholes.iter().any(equals) && !self.is_of_other_generation(other)
    }

    fn is_of_other_generation(&self, other: &Self) -> bool {
        match (self.generation, other.generation) {
            (Some(one), Some(other)) => one != other,
            // A missing suffix says nothing.
            (None, _) | (_, None) => false,
        }
    }
}

/// How the names of an entry may come from those of an account, however common they are.
pub(super) struct Resemblances {
    given: Resemblance,
    family: Resemblance,
    /// Swapped: the given name of the entry from the family name of the account.
    given_as_family: Resemblance,
    family_as_given: Resemblance,
    pub are_equal: bool,
    are_of_other_generations: bool,
}

/// Shares of people whose names are written as those of an entry.
pub(super) struct Shares {
    given_as_given: f64,
    family_as_family: f64,
    family_as_given: f64,
    given_as_family: f64,
}

impl Shares {
    /// `accounts` are those that the entry is compared with.
    pub fn new(
        entry: &FullName,
        accounts: &[(&FullName, &Resemblances)],
        frequencies: &Frequencies,
    ) -> Self {
        type Likelihood = fn(&Resemblances) -> f64;
        let as_given = |written: &Name, likelihood: Likelihood| {
            let meant = accounts.iter();
            let meant = meant.map(|(name, alike)| (name.given.hash, likelihood(alike)));
            written_share(written, meant, |hash| frequencies.of_given_name(hash))
        };
        let as_family = |written: &Name, likelihood: Likelihood| {
            let meant = accounts.iter();
            let meant = meant.map(|(name, alike)| (name.family.hash, likelihood(alike)));
            written_share(written, meant, |hash| frequencies.of_family_name(hash))
        };
        Self {
            given_as_given: as_given(&entry.given, |alike| alike.given.likelihood),
            family_as_family: as_family(&entry.family, |alike| alike.family.likelihood),
            family_as_given: as_given(&entry.family, |alike| alike.family_as_given.likelihood),
            given_as_family: as_family(&entry.given, |alike| alike.given_as_family.likelihood),
        }
    }
}

impl Resemblances {
    /// How much all of it speaks for one person, by how common the names of the entry are.
    pub fn compare(&self, entry: &FullName, shares: &Shares) -> NameComparison {
        let mut comparison = self.compare_both(entry, shares);
        if self.are_of_other_generations {
            comparison.family.ratio *= OTHER_GENERATION;
            comparison.ratio *= OTHER_GENERATION;
        }
        comparison
    }

    fn compare_both(&self, entry: &FullName, shares: &Shares) -> NameComparison {
        let in_order = (
            self.given.evidence(shares.given_as_given),
            self.family.evidence(shares.family_as_family),
        );
        let swapped = (
            self.given_as_family.evidence(shares.given_as_family),
            self.family_as_given.evidence(shares.family_as_given),
        );
        // How many people have these names in this order, and in the other.
        let in_order_share = (1.0 - SWAPPED) * shares.given_as_given * shares.family_as_family;
        let swapped_share = SWAPPED * shares.family_as_given * shares.given_as_family;
        let share = in_order_share + swapped_share;
        let likelihood =
            |share, (given, family): &(Evidence, Evidence)| share * given.ratio * family.ratio;
        let in_order_likelihood = likelihood(in_order_share, &in_order);
        let swapped_likelihood = likelihood(swapped_share, &swapped);
        let are_swapped = swapped_likelihood > in_order_likelihood;
        let ratio = (in_order_likelihood + swapped_likelihood) / share;
        let divided_ratio = DIVIDED_ELSEWHERE / share;
        if self.are_equal && divided_ratio > ratio {
            let half = Evidence {
                nearness: Nearness::PartOfName,
                ratio: divided_ratio.sqrt(),
            };
            return NameComparison {
                given: half,
                family: half,
                given_share: known(&entry.given, shares.given_as_given),
                family_share: known(&entry.family, shares.family_as_family),
                are_swapped: false,
                ratio: divided_ratio,
            };
        }
        let (given, family) = if are_swapped { swapped } else { in_order };
        let (given_share, family_share) = if are_swapped {
            (shares.given_as_family, shares.family_as_given)
        } else {
            (shares.given_as_given, shares.family_as_family)
        };
        NameComparison {
            given,
            family,
            given_share: known(&entry.given, given_share),
            family_share: known(&entry.family, family_share),
            are_swapped,
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
    /// How much likelier the names of the entry are for this client than for anyone, in whatever order.
    pub ratio: f64,
}

/// The share of people whose name is written as `written`: of those who have this name, and of those with one of the
/// other names, given with how likely each would be written so. Most who are entered as `Jonh` are called John, which is
/// common.
fn written_share(
    written: &Name,
    others: impl Iterator<Item = (Option<i64>, f64)>,
    share: impl Fn(Option<i64>) -> f64,
) -> f64 {
    if written.folded.is_missing() {
        return 1.0;
    }
    let mut others: Vec<_> = others.filter(|(hash, _)| *hash != written.hash).collect();
    // Each name once, in one order: sums of floating-point numbers depend on it.
    others.sort_unstable_by_key(|(hash, _)| *hash);
    others.dedup_by_key(|(hash, _)| *hash);
    let altered: f64 = others
        .into_iter()
        .map(|(hash, likelihood)| share(hash) * likelihood)
        .sum();
    share(written.hash) + altered
}

/// The share of people with a name; a filler is nobody's.
fn known(name: &Name, share: f64) -> Option<f64> {
    (!name.folded.is_missing()).then_some(share)
}
