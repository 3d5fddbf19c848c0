//! The places for connections, and who gives way when all of them are taken.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// How many connections there may be at the same time.
///
/// Anybody can open connections and leave them open. So a connection over which no call was let in yet, be its
/// handshake finished or not, keeps its place only while there is room: the oldest of them is closed for a
/// newcomer. Whoever may call does so right after connecting, and stays.
#[derive(Debug)]
pub(super) struct Places {
    max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    count: usize,
    next_id: u64,
    /// The connections over which no call was let in yet, from the oldest to the newest, and what closes each.
    strangers: BTreeMap<u64, CancellationToken>,
}

impl Places {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            taken: Mutex::default(),
        })
    }

    /// A place for a new connection; `None` if all belong to connections that stay.
    pub(super) fn take(self: &Arc<Self>) -> Option<Place> {
        let mut taken = self.taken();
        if taken.count < self.max {
            taken.count += 1;
        } else {
            // The place goes over to the newcomer.
            let (_, oldest) = taken.strangers.pop_first()?;
            oldest.cancel();
        }
        let id = taken.next_id;
        taken.next_id += 1;
        let lost = CancellationToken::new();
        taken.strangers.insert(id, lost.clone());
        Some(Place {
            places: Arc::clone(self),
            id,
            lost,
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    id: u64,
    /// Cancelled when another connection has got the place.
    lost: CancellationToken,
}

impl Place {
    /// A call was let in: the connection keeps its place.
    pub(super) fn keep(&self) {
        self.places.taken().strangers.remove(&self.id);
    }

    /// Ends when another connection has got the place, and this one has to be closed.
    pub(super) fn lost(&self) -> WaitForCancellationFutureOwned {
        self.lost.clone().cancelled_owned()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.strangers.remove(&self.id);
        if !self.lost.is_cancelled() {
            taken.count -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_connection_without_a_call_gives_way() {
        let places = Places::new(2);
        let oldest = places.take().unwrap();
        let newer = places.take().unwrap();
        oldest.keep();
        let newest = places.take().unwrap();
        assert!(newer.lost.is_cancelled());
        assert!(!oldest.lost.is_cancelled());
        assert!(!newest.lost.is_cancelled());
        newest.keep();
        // The one that gave way is not counted twice.
        drop(newer);
        assert!(places.take().is_none());
        drop(oldest);
        assert!(places.take().is_some());
    }
}
