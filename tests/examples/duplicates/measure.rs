//! How well duplicates are found: by the functions of the service, in memory.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use account_svc::domain::duplicate::{Comparison, DuplicateRules, Identity};

use crate::index::{Index, account_id};

/// Accounts, and entries that may be one of them.
pub(crate) struct Set {
    pub(crate) accounts: Vec<Identity>,
    pub(crate) entries: Vec<Entry>,
}

/// An entry.
pub(crate) struct Entry {
    pub(crate) identity: Identity,
    /// The account that it is a duplicate of.
    pub(crate) original: Option<usize>,
    /// What was done to it.
    pub(crate) errors: Vec<String>,
}

/// What came of comparing all entries.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Score of each candidate, and whether it is the original.
    scored: Vec<(f64, bool)>,
    /// Score of the original of each duplicate, 0 if it is no candidate, and what was done to it.
    originals: Vec<(f64, Vec<String>)>,
    /// Of what the service shows: also equal names below the threshold, and copies that share a probability.
    pub(crate) shown: Quality,
    /// Originals among the candidates.
    pub(crate) reached: usize,
    pub(crate) candidates: usize,
    pub(crate) rank_time: Duration,
    pub(crate) slowest: Duration,
}

/// Ranks the candidates of all entries.
pub(crate) fn measure(index: &Index<'_>, entries: &[Entry], rules: DuplicateRules) -> Outcome {
    let all = DuplicateRules {
        threshold: 0.0,
        ..rules
    };
    let (mut shown, mut right) = (0, 0);
    let mut outcome = Outcome::default();
    for entry in entries {
        let candidates = index.candidates(&entry.identity);
        let frequencies = index.frequencies(&entry.identity, &candidates);
        let start = Instant::now();
        let comparison = Comparison::new(&entry.identity, &candidates);
        let ranked = comparison.rank(&frequencies, all);
        let time = start.elapsed();
        outcome.rank_time += time;
        outcome.slowest = outcome.slowest.max(time);
        outcome.candidates += candidates.len();
        let original = entry.original.map(account_id);
        for candidate in comparison.rank(&frequencies, rules) {
            shown += 1;
            right += usize::from(Some(candidate.account_id) == original);
        }
        let scores = ranked
            .iter()
            .map(|candidate| (candidate.score, Some(candidate.account_id) == original));
        let found = scores.clone().find(|(_, is_original)| *is_original);
        outcome
            .scored
            .extend(scores.filter(|(score, _)| *score > 1e-4));
        if original.is_some() {
            outcome.reached += usize::from(found.is_some());
            let score = found.map_or(0.0, |(score, _)| score);
            outcome.originals.push((score, entry.errors.clone()));
        }
    }
    outcome
        .scored
        .sort_by(|one, other| other.0.total_cmp(&one.0));
    outcome.shown = outcome.quality(rules.threshold, right, shown);
    outcome
}

/// Precision, recall and their harmonic mean.
#[derive(Clone, Copy, Default)]
pub(crate) struct Quality {
    pub(crate) threshold: f64,
    pub(crate) precision: f64,
    pub(crate) recall: f64,
    pub(crate) f1: f64,
}

impl Outcome {
    pub(crate) fn duplicates(&self) -> usize {
        self.originals.len()
    }

    /// If all candidates from `threshold` on are shown.
    pub(crate) fn at(&self, threshold: f64) -> Quality {
        let shown = self
            .scored
            .partition_point(|(score, _)| *score >= threshold);
        let right = self.scored[..shown]
            .iter()
            .filter(|(_, right)| *right)
            .count();
        self.quality(threshold, right, shown)
    }

    /// At the threshold where F1 is best.
    pub(crate) fn best(&self) -> Quality {
        let mut best = Quality::default();
        let mut right = 0;
        for (shown, (score, is_right)) in (1..).zip(&self.scored) {
            right += usize::from(*is_right);
            let is_last = self.scored.get(shown).is_none_or(|next| next.0 < *score);
            let quality = self.quality(*score, right, shown);
            if is_last && quality.f1 > best.f1 {
                best = quality;
            }
        }
        best
    }

    fn quality(&self, threshold: f64, right: usize, shown: usize) -> Quality {
        let precision = ratio(right, shown);
        let recall = ratio(right, self.duplicates());
        Quality {
            threshold,
            precision,
            recall,
            f1: 2.0 * precision * recall / (precision + recall).max(f64::MIN_POSITIVE),
        }
    }

    /// For each kind of error: how many there are, and the share that is found from `threshold` on.
    pub(crate) fn by_error(&self, threshold: f64) -> Vec<(String, usize, f64)> {
        let mut by_error: HashMap<&str, (usize, usize)> = HashMap::new();
        for (score, errors) in &self.originals {
            for error in errors {
                let (all, found) = by_error.entry(error).or_default();
                *all += 1;
                *found += usize::from(*score >= threshold);
            }
        }
        let mut by_error: Vec<_> = by_error
            .into_iter()
            .map(|(error, (all, found))| (error.to_owned(), all, ratio(found, all)))
            .collect();
        by_error.sort_by(|one, other| one.0.cmp(&other.0));
        by_error
    }
}

/// A share, or an average; 0 of nothing.
#[expect(clippy::cast_precision_loss, reason = "counts are small")]
pub(crate) fn ratio(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}
