//! The throttle per recipient: it delays emails and never drops them, and each has an exact time at which it goes.
//!
//! An email gets its slot when it is asked for. The slot is checked when the sender takes the email, for others may have
//! gone later than planned: after an outage they do not leave all at once. What goes no more frees its slot, and later
//! emails of the recipient move forward.

use std::collections::{BTreeMap, HashMap, HashSet};

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    db::{
        delivery::{self, Attempt, Claim, Outcome, Recorded},
        recipient_slot::{self, Slot, SlotState},
    },
    domain::{DeliveryChange, LimitName, MailClass, Recipient, RecipientKey, RecipientLimits},
};

/// Why an email fails that would have to wait for too long.
pub const EXPIRES_BEFORE: &str =
    "so many emails go to this recipient that the link would expire before this one may go";

/// An email that needs a slot.
pub struct NewEmail<'a> {
    /// Its id.
    pub delivery_id: Uuid,
    /// What decides its limit.
    pub mail_class: MailClass,
    /// To whom it goes.
    pub recipient: &'a Recipient,
    /// It does not go from this time on.
    pub expire_time: OffsetDateTime,
}

impl NewEmail<'_> {
    fn limit_name(&self) -> LimitName {
        self.mail_class.into()
    }

    /// What it is counted by.
    #[must_use]
    pub fn key(&self) -> RecipientKey {
        RecipientKey::new(self.limit_name(), self.recipient)
    }
}

/// Whether an email that is due may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It may go now, and counts as going.
    Now,
    /// It has another slot.
    At(OffsetDateTime),
}

/// Some recipients, locked until the end of the transaction, with all their slots. Nothing is written before
/// [`Slots::write`].
pub struct Slots<'a> {
    limits: &'a RecipientLimits,
    /// Of the transaction.
    now: OffsetDateTime,
    of_recipients: BTreeMap<RecipientKey, Vec<Slot>>,
    /// Where an email is found.
    recipients: HashMap<Uuid, RecipientKey>,
    changed: HashSet<(Uuid, i32)>,
    freed: Vec<Uuid>,
    moved: BTreeMap<Uuid, OffsetDateTime>,
}

impl<'a> Slots<'a> {
    /// Locks the recipients of emails, and those of `more`. All at once: who locked some and then others would wait in a
    /// circle.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn lock(
        connection: &mut PgConnection,
        limits: &'a RecipientLimits,
        now: OffsetDateTime,
        delivery_ids: &[Uuid],
        more: impl IntoIterator<Item = RecipientKey>,
    ) -> Result<Self, sqlx::Error> {
        let mut keys: Vec<_> = more.into_iter().collect();
        if !delivery_ids.is_empty() {
            keys.extend(recipient_slot::recipients(connection, delivery_ids).await?);
        }
        let mut slots = Self {
            limits,
            now,
            of_recipients: BTreeMap::new(),
            recipients: HashMap::new(),
            changed: HashSet::new(),
            freed: Vec::new(),
            moved: BTreeMap::new(),
        };
        if !keys.is_empty() {
            for slot in recipient_slot::lock(connection, &keys).await? {
                slots.put(slot);
            }
        }
        Ok(slots)
    }

    /// Gives a new email its slot. Answers when it goes, or `None` if it would have to wait until it expires: such an
    /// email gets no slot.
    pub fn reserve(&mut self, email: &NewEmail<'_>) -> Option<OffsetDateTime> {
        let mut slot = Slot {
            delivery_id: email.delivery_id,
            slot_number: 1,
            recipient_key: email.key(),
            limit_name: email.limit_name(),
            state: SlotState::Waiting,
            from_time: self.now,
            slot_time: self.now,
        };
        slot.slot_time = self.next_slot(&slot, |_| true);
        // What has expired already is not the limit's fault.
        if slot.slot_time >= email.expire_time && slot.slot_time > self.now {
            return None;
        }
        self.change(slot);
        Some(slot.slot_time)
    }

    /// Checks the slot of an email that is due against the times at which others went. An email without a slot may go.
    pub fn take_turn(&mut self, delivery_id: Uuid) -> Turn {
        let Some(mut slot) = self.last(delivery_id) else {
            return Turn::Now;
        };
        slot.from_time = slot.from_time.max(self.now);
        let is_used = |other: &Slot| other.state != SlotState::Waiting;
        let turn = if self.next_slot(&slot, is_used) <= self.now {
            slot.state = SlotState::Going;
            slot.slot_time = self.now;
            Turn::Now
        } else {
            slot.state = SlotState::Waiting;
            slot.slot_time = self.next_slot(&slot, |_| true);
            Turn::At(slot.slot_time)
        };
        self.change(slot);
        turn
    }

    /// Gives an email that the sender did not get rid of a slot from `until` on, and answers its time. One that may have
    /// arrived all the same has used the slot that it had.
    pub fn put_off(
        &mut self,
        delivery_id: Uuid,
        until: OffsetDateTime,
        may_have_arrived: bool,
    ) -> OffsetDateTime {
        let Some(mut slot) = self.last(delivery_id) else {
            return until;
        };
        if may_have_arrived {
            self.change(Slot {
                state: SlotState::Gone,
                slot_time: self.now,
                ..slot
            });
            slot.slot_number += 1;
        }
        slot.state = SlotState::Waiting;
        slot.from_time = until;
        slot.slot_time = self.next_slot(&slot, |_| true);
        self.change(slot);
        slot.slot_time
    }

    /// Frees the slots of emails that go no more, and moves later emails of their recipients forward, before others are
    /// given the places. A slot that was used stays used.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn free(
        &mut self,
        connection: &mut PgConnection,
        delivery_ids: &[Uuid],
    ) -> Result<(), sqlx::Error> {
        let keys = delivery_ids.iter().filter_map(|id| self.recipients.get(id));
        let keys: HashSet<_> = keys.copied().collect();
        let mut waiting = Vec::new();
        for key in &keys {
            let slots = self.of_recipients.entry(*key).or_default();
            slots.retain(|slot| {
                slot.state == SlotState::Gone || !delivery_ids.contains(&slot.delivery_id)
            });
            let later = slots.iter().filter(|slot| slot.slot_time > self.now);
            waiting.extend(
                later
                    .filter(|slot| slot.state == SlotState::Waiting)
                    .copied(),
            );
        }
        self.freed.extend_from_slice(delivery_ids);
        waiting.sort_unstable_by_key(|slot| (slot.slot_time, slot.delivery_id));
        let ids: Vec<_> = waiting.iter().map(|slot| slot.delivery_id).collect();
        // What somebody else has at this moment stays where it is.
        let movable = delivery::lock_waiting(connection, &ids).await?;
        for mut slot in waiting {
            slot.from_time = slot.from_time.max(self.now);
            let slot_time = self.next_slot(&slot, |_| true);
            if slot_time < slot.slot_time && movable.contains(&slot.delivery_id) {
                slot.slot_time = slot_time;
                self.change(slot);
                self.moved.insert(slot.delivery_id, slot_time);
            }
        }
        Ok(())
    }

    /// Writes all of it. Answers the emails that were moved forward.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn write(
        self,
        connection: &mut PgConnection,
    ) -> Result<Vec<DeliveryChange>, sqlx::Error> {
        if !self.freed.is_empty() {
            recipient_slot::free(connection, &self.freed).await?;
        }
        let slots = self.of_recipients.values().flatten();
        let changed: Vec<_> = slots
            .filter(|slot| self.changed.contains(&(slot.delivery_id, slot.slot_number)))
            .copied()
            .collect();
        recipient_slot::write(connection, &changed).await?;
        delivery::move_forward(connection, &self.moved).await
    }

    /// The first time from `slot.from_time` on at which its email may go beside the others of the recipient that
    /// `counts` says. What is going may arrive at any moment from now on.
    fn next_slot(&self, slot: &Slot, counts: impl Fn(&Slot) -> bool) -> OffsetDateTime {
        let others = self.of_recipients.get(&slot.recipient_key);
        let mut taken: Vec<_> = others
            .into_iter()
            .flatten()
            .filter(|other| !is_same(other, slot) && counts(other))
            .map(|other| match other.state {
                SlotState::Going => other.slot_time.max(self.now),
                SlotState::Waiting | SlotState::Gone => other.slot_time,
            })
            .collect();
        taken.sort_unstable();
        self.limits
            .get(slot.limit_name)
            .next_slot(&taken, slot.from_time)
    }

    /// The last slot of an email.
    fn last(&self, delivery_id: Uuid) -> Option<Slot> {
        let slots = self.of_recipients.get(self.recipients.get(&delivery_id)?)?;
        slots
            .iter()
            .filter(|slot| slot.delivery_id == delivery_id)
            .max_by_key(|slot| slot.slot_number)
            .copied()
    }

    fn change(&mut self, slot: Slot) {
        self.changed.insert((slot.delivery_id, slot.slot_number));
        self.put(slot);
    }

    /// Adds a slot, or puts it in the place of what it was.
    fn put(&mut self, slot: Slot) {
        self.recipients.insert(slot.delivery_id, slot.recipient_key);
        let slots = self.of_recipients.entry(slot.recipient_key).or_default();
        slots.retain(|other| !is_same(other, &slot));
        slots.push(slot);
    }
}

fn is_same(one: &Slot, other: &Slot) -> bool {
    (one.delivery_id, one.slot_number) == (other.delivery_id, other.slot_number)
}

fn may_have_arrived(outcome: &Outcome) -> bool {
    outcome.attempt == Attempt::MayHaveArrived
}

/// Frees the slots of emails that go no more. Answers the emails that were moved forward.
///
/// # Errors
/// If the database fails.
pub async fn free(
    connection: &mut PgConnection,
    limits: &RecipientLimits,
    now: OffsetDateTime,
    delivery_ids: &[Uuid],
) -> Result<Vec<DeliveryChange>, sqlx::Error> {
    let mut slots = Slots::lock(connection, limits, now, delivery_ids, []).await?;
    slots.free(connection, delivery_ids).await?;
    slots.write(connection).await
}

/// Settles the slots of emails whose outcomes were recorded: those that may have arrived have used theirs, those that are
/// tried again get another, and the others free theirs. Answers the changes to publish.
///
/// # Errors
/// If the database fails.
pub async fn settle(
    connection: &mut PgConnection,
    limits: &RecipientLimits,
    outcomes: &[(Claim, Outcome)],
    recorded: &Recorded,
) -> Result<Vec<DeliveryChange>, sqlx::Error> {
    let Some(now) = recorded.time else {
        return Ok(Vec::new());
    };
    let ours = outcomes
        .iter()
        .filter(|(claim, _)| recorded.delivery_ids.contains(&claim.delivery_id))
        .map(|(claim, outcome)| (claim.delivery_id, outcome));
    // Most emails arrive, and need no lock.
    let (arrived, others): (Vec<_>, Vec<_>) =
        ours.partition(|(_, outcome)| may_have_arrived(outcome) && outcome.next.is_none());
    if !arrived.is_empty() {
        let arrived: Vec<_> = arrived.iter().map(|(id, _)| *id).collect();
        recipient_slot::arrived(connection, &arrived).await?;
    }
    if others.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<_> = others.iter().map(|(id, _)| *id).collect();
    let mut slots = Slots::lock(connection, limits, now, &ids, []).await?;
    let (mut later, mut freed) = (Vec::new(), Vec::new());
    for (delivery_id, outcome) in others {
        let Some(next) = outcome.next else {
            freed.push(delivery_id);
            continue;
        };
        let until = next.time_after(now);
        let slot = slots.put_off(delivery_id, until, may_have_arrived(outcome));
        if slot > until {
            later.push((delivery_id, slot));
        }
    }
    delivery::postpone(connection, &later).await?;
    slots.free(connection, &freed).await?;
    slots.write(connection).await
}
