//! How urgent and bulk mail share the sender: neither can take more than three quarters of it, so that
//! a quarter is always there for the other, and urgent mail chooses first.

use crate::db::delivery::Lane;

/// Counts what is under way.
pub(super) struct Lanes {
    capacity: usize,
    most: usize,
    urgent: usize,
    bulk: usize,
}

/// How many emails can be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// Of both kinds together.
    pub total: usize,
    urgent: usize,
    bulk: usize,
}

impl Room {
    /// The share of each lane, urgent mail first.
    pub(super) fn shares(self) -> [(Lane, usize); 2] {
        [(Lane::Urgent, self.urgent), (Lane::Bulk, self.bulk)]
    }
}

impl Lanes {
    pub(super) fn new(capacity: usize) -> Self {
        let capacity = capacity.max(2);
        Self {
            capacity,
            most: (capacity * 3 / 4).max(1),
            urgent: 0,
            bulk: 0,
        }
    }

    pub(super) fn started(&mut self, lane: Lane) {
        *self.count(lane) += 1;
    }

    /// A task ended; `None` if it panicked and its lane is not known.
    pub(super) fn finished(&mut self, lane: Option<Lane>) {
        // Without knowing, bulk mail is likelier.
        let count = self.count(lane.unwrap_or(Lane::Bulk));
        *count = count.saturating_sub(1);
    }

    /// What can be claimed now. While the relay fails, one email at a time finds out whether it is back.
    pub(super) fn room(&self, relay_fails: bool) -> Room {
        let under_way = self.urgent + self.bulk;
        let total = if relay_fails {
            1_usize.saturating_sub(under_way)
        } else {
            self.capacity.saturating_sub(under_way)
        };
        Room {
            total,
            urgent: self.most.saturating_sub(self.urgent).min(total),
            bulk: self.most.saturating_sub(self.bulk).min(total),
        }
    }

    fn count(&mut self, lane: Lane) -> &mut usize {
        match lane {
            Lane::Urgent => &mut self.urgent,
            Lane::Bulk => &mut self.bulk,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lane_leaves_a_quarter_to_the_other() {
        let mut lanes = Lanes::new(16);
        assert_eq!(
            lanes.room(false).shares(),
            [(Lane::Urgent, 12), (Lane::Bulk, 12)]
        );
        for _ in 0..12 {
            lanes.started(Lane::Bulk);
        }
        assert_eq!(
            lanes.room(false).shares(),
            [(Lane::Urgent, 4), (Lane::Bulk, 0)]
        );
        lanes.finished(Some(Lane::Bulk));
        assert_eq!(
            lanes.room(false).shares(),
            [(Lane::Urgent, 5), (Lane::Bulk, 1)]
        );
    }

    #[test]
    fn one_email_tries_a_relay_that_failed() {
        let mut lanes = Lanes::new(16);
        assert_eq!(lanes.room(true).total, 1);
        lanes.started(Lane::Urgent);
        assert_eq!(lanes.room(true).total, 0);
    }
}
