//! How the classes of mail share the connections: each leaves some to those that are more urgent, so that a run of bulk
//! mail over a slow relay holds up nothing else.

use crate::domain::MailClass;

/// A number for each lane, in the order of [`MailClass::BY_URGENCY`].
pub(super) type PerLane<T> = [T; 3];

/// The place of a lane in [`PerLane`].
pub(super) fn index(lane: MailClass) -> usize {
    match lane {
        MailClass::Security => 0,
        MailClass::Interactive => 1,
        MailClass::Bulk => 2,
    }
}

/// How many connections each lane can have together with those that are less urgent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lanes {
    most: PerLane<usize>,
}

impl Lanes {
    /// Where there are four connections or more, one is left for security mail; and of the others, bulk mail leaves a
    /// quarter, if there are two or more.
    pub(super) fn new(connections: usize) -> Self {
        let connections = connections.max(1);
        let but_one = if connections < 4 {
            connections
        } else {
            connections - 1
        };
        Self {
            most: [connections, but_one, (but_one * 3 / 4).max(1)],
        }
    }

    /// Most connections of a lane.
    pub(super) fn most(&self, lane: MailClass) -> usize {
        self.most[index(lane)]
    }

    /// Whether an email of `lane` can have a connection while these are in use.
    pub(super) fn can_start(&self, lane: MailClass, in_use: &PerLane<usize>) -> bool {
        // It counts among the less urgent for its own lane and for those above.
        (0..=index(lane)).all(|level| in_use[level..].iter().sum::<usize>() < self.most[level])
    }

    /// How many emails can wait for a connection: enough for the time of a claim, and few enough that none waits for long.
    pub(super) fn queue(&self, lane: MailClass) -> usize {
        2 * self.most(lane)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bulk_mail_leaves_a_quarter_and_all_but_security_mail_leave_one() {
        let lanes = Lanes::new(16);
        assert_eq!(
            MailClass::BY_URGENCY.map(|lane| lanes.most(lane)),
            [16, 15, 11]
        );
        assert!(!lanes.can_start(MailClass::Bulk, &[0, 0, 11]));
        assert!(lanes.can_start(MailClass::Interactive, &[0, 0, 11]));
        assert!(!lanes.can_start(MailClass::Interactive, &[0, 4, 11]));
        assert!(!lanes.can_start(MailClass::Bulk, &[0, 8, 7]));
        assert!(lanes.can_start(MailClass::Security, &[0, 4, 11]));
        assert!(!lanes.can_start(MailClass::Security, &[16, 0, 0]));
    }

    proptest! {
        #[test]
        fn each_lane_leaves_room_for_the_more_urgent(
            connections in 1_usize..40,
            // Starts and ends of emails, by lane.
            events in prop::collection::vec((0_usize..3, any::<bool>()), 0..200),
        ) {
            let lanes = Lanes::new(connections);
            let mut in_use = [0_usize; 3];
            for (lane, starts) in events {
                if !starts {
                    in_use[lane] = in_use[lane].saturating_sub(1);
                } else if lanes.can_start(MailClass::BY_URGENCY[lane], &in_use) {
                    in_use[lane] += 1;
                }
                prop_assert!(in_use.iter().sum::<usize>() <= connections);
                prop_assert!(in_use[2] <= (connections * 3 / 4).max(1));
                if connections >= 2 {
                    prop_assert!(in_use[2] < lanes.most(MailClass::Interactive));
                }
                if connections >= 4 {
                    prop_assert!(in_use[1] + in_use[2] < connections);
                }
            }
            // Nobody waits while nothing is in use.
            for lane in MailClass::BY_URGENCY {
                prop_assert!(lanes.can_start(lane, &[0; 3]));
            }
        }
    }
}
