//! Emails that are marked and written, and wait for a connection: few, in memory, the most urgent first.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::oneshot;
use usher_runtime::wake::Wake;

use super::lanes::{Lanes, PerLane, index};
use crate::{db::delivery::Claim, domain::MailClass, mail::OutgoingMail};

/// An email that can be handed over.
pub(super) struct ReadyMail {
    /// What was claimed.
    pub claim: Claim,
    /// What is sent.
    pub mail: OutgoingMail,
    /// Its lease began no later.
    pub marked: Instant,
}

/// The queue. Clones share it.
#[derive(Clone)]
pub(super) struct ReadyQueue(Arc<Shared>);

struct Shared {
    lanes: Lanes,
    state: Mutex<State>,
    /// Wakes who fills the queue: an email is done.
    done: Wake,
}

#[derive(Default)]
struct State {
    waiting: PerLane<VecDeque<ReadyMail>>,
    /// Connections in use.
    in_use: PerLane<usize>,
    /// Workers without an email, the one that had one last at the end: its connection is still open.
    idle: Vec<oneshot::Sender<ReadyMail>>,
    closed: bool,
}

/// Counts as a connection of its lane until it is dropped, also by a panic.
pub(super) struct Permit {
    queue: ReadyQueue,
    lane: MailClass,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.in_use[index(self.lane)] -= 1;
        self.queue.hand_out(&mut state);
        drop(state);
        self.queue.0.done.notify();
    }
}

impl ReadyQueue {
    pub(super) fn new(lanes: Lanes) -> Self {
        Self(Arc::new(Shared {
            lanes,
            state: Mutex::default(),
            done: Wake::default(),
        }))
    }

    /// Adds emails, for which there was [`Self::room`].
    pub(super) fn push(&self, mails: Vec<ReadyMail>) {
        let mut state = self.lock();
        for ready in mails {
            state.waiting[index(ready.claim.lane)].push_back(ready);
        }
        self.hand_out(&mut state);
    }

    /// The next email for a worker: waits for one. `None` once the queue is closed.
    pub(super) async fn next(&self) -> Option<(ReadyMail, Permit)> {
        let next = {
            let mut state = self.lock();
            if state.closed {
                return None;
            }
            let (worker, next) = oneshot::channel();
            state.idle.push(worker);
            self.hand_out(&mut state);
            next
        };
        let ready = next.await.ok()?;
        let permit = Permit {
            queue: self.clone(),
            lane: ready.claim.lane,
        };
        Some((ready, permit))
    }

    /// How many emails of each lane can be added.
    pub(super) fn room(&self) -> PerLane<usize> {
        let state = self.lock();
        MailClass::BY_URGENCY.map(|lane| {
            let most = self.0.lanes.queue(lane);
            most.saturating_sub(state.waiting[index(lane)].len())
        })
    }

    /// Whether at least half the places of one of these lanes are free.
    pub(super) fn is_half_empty(&self, lanes: PerLane<bool>) -> bool {
        let state = self.lock();
        MailClass::BY_URGENCY.iter().any(|lane| {
            let waiting = state.waiting[index(*lane)].len();
            lanes[index(*lane)] && waiting * 2 <= self.0.lanes.queue(*lane)
        })
    }

    /// How many emails wait or are being handed over.
    pub(super) fn under_way(&self) -> usize {
        let state = self.lock();
        let waiting: usize = state.waiting.iter().map(VecDeque::len).sum();
        waiting + state.in_use.iter().sum::<usize>()
    }

    /// Returns when an email is done.
    pub(super) async fn email_done(&self) {
        self.0.done.notified().await;
    }

    /// Lets the workers end, and answers what they have not taken.
    pub(super) fn close(&self) -> Vec<ReadyMail> {
        let mut state = self.lock();
        state.closed = true;
        state.idle.clear();
        state.waiting.iter_mut().flat_map(std::mem::take).collect()
    }

    /// Gives emails to idle workers as far as lanes allow it, the most urgent first.
    fn hand_out(&self, state: &mut State) {
        for lane in MailClass::BY_URGENCY {
            while !state.waiting[index(lane)].is_empty()
                && self.0.lanes.can_start(lane, &state.in_use)
                && let Some(worker) = state.idle.pop()
                && let Some(ready) = state.waiting[index(lane)].pop_front()
            {
                match worker.send(ready) {
                    Ok(()) => state.in_use[index(lane)] += 1,
                    // The worker has ended.
                    Err(ready) => state.waiting[index(lane)].push_front(ready),
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
