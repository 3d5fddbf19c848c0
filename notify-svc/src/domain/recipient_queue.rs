//! The emails of one recipient under one limit, and when each goes.
//!
//! They go in the order in which they were asked for, single ones before bulk. An email waits for those before it and for
//! none behind it: whatever comes, goes late, is put off or is given up, the others are planned anew in this order.

use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::{MailClass, RecipientKey, Window};

/// Shifts of a plan that nobody is told of: an email is sent some milliseconds after its time, and those behind it are
/// too.
pub const NOTICEABLE: Duration = Duration::from_secs(1);

/// Most emails of a recipient that wait: all slots are read whenever one of them is looked at.
const MAX_WAITING: usize = 1_000;

/// Whether an email has used its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SlotState {
    /// It waits for it.
    Waiting,
    /// The sender has it: it may arrive at any moment.
    Going,
    /// It has arrived, or may have.
    Gone,
}

impl SlotState {
    /// Its name in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "WAITING",
            Self::Going => "GOING",
            Self::Gone => "GONE",
        }
    }
}

/// When an email goes or went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// The email. Ids are `UUIDv7`: their order is the order in which emails were asked for.
    pub delivery_id: Uuid,
    /// Counts the slots of an email, of which only the last can be waiting.
    pub slot_number: i32,
    /// Whose it is.
    pub recipient_key: RecipientKey,
    /// Decides the limit, and bulk mail goes last.
    pub mail_class: MailClass,
    /// Whether it is used.
    pub state: SlotState,
    /// The email does not go before this.
    pub from_time: OffsetDateTime,
    /// When it goes or went.
    pub slot_time: OffsetDateTime,
}

impl Slot {
    fn order(&self) -> (bool, Uuid) {
        (self.mail_class == MailClass::Bulk, self.delivery_id)
    }

    fn is_same(&self, other: &Self) -> bool {
        (self.delivery_id, self.slot_number) == (other.delivery_id, other.slot_number)
    }
}

/// Whether an email that is due may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It may go now, and counts as going.
    Now,
    /// It has another slot.
    At(OffsetDateTime),
    /// Its link expires before it may go. It has no slot any more.
    Never,
}

/// All slots of a recipient, at one moment.
#[derive(Debug, Clone)]
pub struct RecipientQueue {
    window: Window,
    now: OffsetDateTime,
    slots: Vec<Slot>,
}

impl RecipientQueue {
    /// An empty queue.
    #[must_use]
    pub fn new(window: Window, now: OffsetDateTime) -> Self {
        Self {
            window,
            now,
            slots: Vec::new(),
        }
    }

    /// Adds a slot as it was stored.
    pub fn load(&mut self, slot: Slot) {
        self.slots.push(slot);
    }

    /// All slots, in no particular order.
    #[must_use]
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Adds an email that is new, or sent again, and answers when it goes; `None` if that is not before `expire_time`: such an email gets
    /// no slot, nor one behind 1,000 others. One whose link has expired already is not refused for its recipient's sake.
    pub fn reserve(&mut self, slot: Slot, expire_time: OffsetDateTime) -> Option<OffsetDateTime> {
        // One that is sent again has used others.
        let slot = self.unused(slot.delivery_id).unwrap_or(slot);
        let slot_time = self.next_slot(&slot);
        if slot_time > self.now && (slot_time >= expire_time || self.waiting() >= MAX_WAITING) {
            return None;
        }
        self.put(Slot { slot_time, ..slot });
        Some(slot_time)
    }

    /// Whether an email may go at this moment, for others may have gone later than planned. `new` is the slot of one that
    /// has none yet.
    pub fn take_turn(&mut self, new: Slot, expire_time: OffsetDateTime) -> Turn {
        let delivery_id = new.delivery_id;
        let mut slot = self.unused(delivery_id).unwrap_or(new);
        slot.from_time = slot.from_time.max(self.now);
        slot.slot_time = self.next_slot(&slot);
        if slot.slot_time <= self.now {
            slot.state = SlotState::Going;
            self.put(slot);
            return Turn::Now;
        }
        if slot.slot_time >= expire_time {
            self.free(delivery_id);
            return Turn::Never;
        }
        slot.state = SlotState::Waiting;
        self.put(slot);
        Turn::At(slot.slot_time)
    }

    /// Lets an email wait that did not leave for certain: for a slot from `until` on, whose time it answers. One that may
    /// have arrived all the same has used the slot that it had. `None` if it would wait until `expire_time`: it has no
    /// unused slot any more.
    pub fn put_off(
        &mut self,
        delivery_id: Uuid,
        until: OffsetDateTime,
        expire_time: OffsetDateTime,
        may_have_arrived: bool,
    ) -> Option<OffsetDateTime> {
        let Some(mut slot) = self.unused(delivery_id) else {
            return Some(until);
        };
        if may_have_arrived && slot.state == SlotState::Going {
            self.put(Slot {
                state: SlotState::Gone,
                slot_time: slot.slot_time.max(self.now),
                ..slot
            });
            slot.slot_number += 1;
        }
        slot.state = SlotState::Waiting;
        slot.from_time = until;
        slot.slot_time = self.next_slot(&slot);
        if slot.slot_time >= expire_time {
            self.free(delivery_id);
            return None;
        }
        self.put(slot);
        Some(slot.slot_time)
    }

    /// Forgets an email that goes no more. A slot that it has used stays.
    pub fn free(&mut self, delivery_id: Uuid) {
        self.slots
            .retain(|slot| slot.state == SlotState::Gone || slot.delivery_id != delivery_id);
    }

    /// Plans the waiting emails anew, of which `may_move` says whether they can be given another time. Answers those whose
    /// times changed noticeably.
    pub fn plan(&mut self, may_move: impl Fn(Uuid) -> bool) -> Vec<(Uuid, OffsetDateTime)> {
        let now = self.latest();
        let mut waiting: Vec<_> = (0..self.slots.len())
            .filter(|index| self.slots[*index].state == SlotState::Waiting)
            .collect();
        waiting.sort_unstable_by_key(|index| self.slots[*index].order());
        let mut taken = self.taken(now, |slot| slot.state != SlotState::Waiting);
        let mut moved = Vec::new();
        // Of the email before, which had at least as much room: what goes from the same time on goes no earlier than it.
        let mut before: Option<(OffsetDateTime, OffsetDateTime)> = None;
        for index in waiting {
            let slot = self.slots[index];
            let from = slot.from_time.max(now);
            // What is due goes when the sender takes it.
            let mut slot_time = slot.slot_time.max(now);
            if may_move(slot.delivery_id) {
                let start = match before {
                    Some((before_from, before_time)) if from >= before_from => {
                        from.max(before_time)
                    }
                    _ => from,
                };
                let first = self.window.next_slot(&taken, start);
                if (first - slot_time).unsigned_abs() >= NOTICEABLE {
                    self.slots[index].slot_time = first;
                    moved.push((slot.delivery_id, first));
                    slot_time = first;
                }
                before = Some((from, first));
            }
            taken.insert(taken.partition_point(|time| *time <= slot_time), slot_time);
        }
        moved
    }

    /// When a single email would go that was asked for now, if `window` were its only limit.
    #[must_use]
    pub fn slot_for_new(&self, window: &Window) -> OffsetDateTime {
        // Bulk mail waits behind it.
        let counts =
            |other: &Slot| other.state != SlotState::Waiting || other.mail_class != MailClass::Bulk;
        self.next_slot_in(window, self.now, counts)
    }

    /// The first time at which an email may go beside what is used and what waits before it.
    fn next_slot(&self, slot: &Slot) -> OffsetDateTime {
        let counts = |other: &Slot| {
            let is_before = other.state != SlotState::Waiting || other.order() < slot.order();
            is_before && !other.is_same(slot)
        };
        self.next_slot_in(&self.window, slot.from_time, counts)
    }

    fn next_slot_in(
        &self,
        window: &Window,
        from: OffsetDateTime,
        counts: impl Fn(&Slot) -> bool,
    ) -> OffsetDateTime {
        let now = self.latest();
        window.next_slot(&self.taken(now, counts), from.max(now))
    }

    /// When those slots are, ascending. What is going may arrive at any moment from now on, and what is due may go.
    fn taken(&self, now: OffsetDateTime, counts: impl Fn(&Slot) -> bool) -> Vec<OffsetDateTime> {
        let slots = self.slots.iter().filter(|slot| counts(slot));
        let times = slots.map(|slot| match slot.state {
            // Not its slot: the clock may have been set back since.
            SlotState::Going => now,
            SlotState::Waiting => slot.slot_time.max(now),
            SlotState::Gone => slot.slot_time,
        });
        let mut taken: Vec<_> = times.collect();
        taken.sort_unstable();
        taken
    }

    fn waiting(&self) -> usize {
        let slots = self.slots.iter();
        slots
            .filter(|slot| slot.state == SlotState::Waiting)
            .count()
    }

    /// The time, or the last at which an email went: nothing goes before that if the clock was set back.
    fn latest(&self) -> OffsetDateTime {
        let gone = self
            .slots
            .iter()
            .filter(|slot| slot.state == SlotState::Gone);
        gone.map(|slot| slot.slot_time)
            .fold(self.now, OffsetDateTime::max)
    }

    /// The slot that an email waits for or is going in. One that has used all of its slots needs another.
    fn unused(&self, delivery_id: Uuid) -> Option<Slot> {
        let slots = self.slots.iter();
        let last = slots
            .filter(|slot| slot.delivery_id == delivery_id)
            .max_by_key(|slot| slot.slot_number)?;
        Some(match last.state {
            SlotState::Waiting | SlotState::Going => *last,
            SlotState::Gone => Slot {
                slot_number: last.slot_number + 1,
                state: SlotState::Waiting,
                from_time: self.now,
                ..*last
            },
        })
    }

    /// Adds a slot, or puts it in the place of what it was.
    fn put(&mut self, slot: Slot) {
        match self.slots.iter_mut().find(|other| other.is_same(&slot)) {
            Some(place) => *place = slot,
            None => self.slots.push(slot),
        }
    }
}

#[cfg(test)]
mod tests;
