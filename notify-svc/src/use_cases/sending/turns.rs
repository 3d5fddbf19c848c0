//! How organizations share a lane: each has its turn, however many emails it has.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::db::delivery::{Visited, Wanted};

/// An email of each organization after the other, until there are as many as wanted; and whose turn it is next.
pub(super) fn take(wanted: &Wanted, visited: &[Visited]) -> (Vec<Visited>, Uuid) {
    let mut of_organizations: BTreeMap<Uuid, Vec<&Visited>> = BTreeMap::new();
    for visited in visited.iter().filter(|visited| visited.lane == wanted.lane) {
        let emails = of_organizations.entry(visited.organization_id).or_default();
        emails.extend(visited.entry.is_some().then_some(visited));
    }
    let mut chosen = Vec::new();
    for turn in 0.. {
        // The last organizations of a round have no more than their turn: the next one begins at once.
        if turn > 0 && !wanted.from.is_nil() {
            break;
        }
        let of_turn = of_organizations
            .values()
            .filter_map(|emails| emails.get(turn).copied());
        let before = chosen.len();
        chosen.extend(of_turn.take(wanted.count - before).cloned());
        if chosen.len() == before {
            break;
        }
    }
    // The one after whoever came last, unless all have had the same number of turns.
    let last = chosen.last().map(|visited| visited.organization_id);
    let are_even = of_organizations.len() < wanted.count
        && last.as_ref() == of_organizations.keys().next_back();
    let next = last.filter(|_| chosen.len() >= wanted.count && !are_even);
    let next = next.map_or(Uuid::nil(), |last| {
        Uuid::from_u128(last.as_u128().wrapping_add(1))
    });
    (chosen, next)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{db::delivery::QueueEntry, domain::MailClass};

    /// What the query answers if each organization has emails without an end.
    fn visit(organizations: u128, wanted: &Wanted) -> Vec<Visited> {
        let visited: Vec<_> = (1..=organizations)
            .map(Uuid::from_u128)
            .filter(|id| *id >= wanted.from)
            .take(wanted.count)
            .collect();
        let share = wanted.count.div_ceil(visited.len().max(1));
        let entry = QueueEntry {
            delivery_id: Uuid::nil(),
            due_time: time::OffsetDateTime::UNIX_EPOCH,
            was_held: false,
            is_late: false,
            handover_token: None,
            put_back_count: 0,
            refuse_time: None,
        };
        let emails = |organization_id| {
            let visited = Visited {
                lane: wanted.lane,
                organization_id,
                entry: Some(entry),
            };
            vec![visited; share]
        };
        visited.into_iter().flat_map(emails).collect()
    }

    proptest! {
        /// Whatever their number and their ids are.
        #[test]
        fn no_organization_gets_more_than_its_share(organizations in 1_u128..60, count in 1_usize..40) {
            let mut wanted = Wanted { lane: MailClass::Bulk, count, from: Uuid::nil() };
            let mut taken = BTreeMap::new();
            let mut total = 0_usize;
            for _ in 0..300 {
                let (chosen, next) = take(&wanted, &visit(organizations, &wanted));
                for visited in &chosen {
                    *taken.entry(visited.organization_id).or_insert(0_usize) += 1;
                }
                total += chosen.len();
                wanted.from = next;
            }
            let fair = total / usize::try_from(organizations).unwrap();
            for (_, emails) in taken {
                prop_assert!(emails <= fair + fair / 10 + 2 && emails + fair / 10 + 2 >= fair, "{emails} of {fair}");
            }
        }
    }
}
