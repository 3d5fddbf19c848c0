//! Numbers that look random and are the same in every run (splitmix64).

/// A source of numbers.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// The same numbers for the same `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Below `end`, which is above 0.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap_or_default()
    }

    /// Whether something that happens `percent` times in a hundred happens.
    pub fn happens(&mut self, percent: f64) -> bool {
        self.unit() * 100.0 < percent
    }

    /// From 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// One of a list.
    ///
    /// # Panics
    /// If it is empty.
    pub fn one_of<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// One of a list that has the most common first: the second is half as common as the first, the third a third
    /// (Zipf).
    ///
    /// # Panics
    /// If it is empty.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "lists are short"
    )]
    pub fn common<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        let place = (of.len() as f64 + 1.0).powf(self.unit()) - 1.0;
        &of[(place as usize).min(of.len() - 1)]
    }

    /// One of a list with weights.
    ///
    /// # Panics
    /// If it is empty.
    pub fn weighted<'a, T>(&mut self, of: &'a [(T, usize)]) -> &'a T {
        let total = of.iter().map(|(_, weight)| weight).sum();
        let mut left = self.below(total);
        for (one, weight) in of {
            if left < *weight {
                return one;
            }
            left -= weight;
        }
        &of[0].0
    }
}
