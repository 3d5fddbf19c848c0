//! The throttle per recipient: it delays emails and never drops them, and each has an exact time at which it goes.
//!
//! An email gets its slot when it is asked for. The slot is checked when the sender takes the email, for others may have
//! gone later than planned: after an outage they do not leave all at once. The arithmetic is in
//! [`RecipientQueue`](crate::domain::RecipientQueue).

use std::collections::{BTreeMap, HashMap, HashSet};

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    db::{
        delivery::{self, Attempt, Claim, Next, Outcome},
        recipient_slot,
    },
    domain::{
        DeliveryChange, DeliveryState, MailClass, NOTICEABLE, Recipient, RecipientKey,
        RecipientLimits, RecipientQueue, Slot, SlotState, Turn,
    },
};

const EXPIRES: &str =
    "so many emails go to this recipient that the link would expire before this one may go";

const LOST_AND_EXPIRES: &str = "the relay's answer was lost; the email may have arrived, and the link would expire before it may be sent once more";

/// Why an email fails that would have to wait for too long.
#[must_use]
pub const fn expires_before(may_have_arrived: bool) -> &'static str {
    if may_have_arrived {
        LOST_AND_EXPIRES
    } else {
        EXPIRES
    }
}

/// An email that needs a slot.
#[derive(Clone, Copy)]
pub struct Email<'a> {
    /// Its id.
    pub delivery_id: Uuid,
    /// Decides its limit and its place among the others.
    pub mail_class: MailClass,
    /// To whom it goes.
    pub recipient: &'a Recipient,
    /// It does not go from this time on.
    pub expire_time: OffsetDateTime,
}

impl Email<'_> {
    /// What it is counted by.
    #[must_use]
    pub fn key(&self) -> RecipientKey {
        RecipientKey::new(self.mail_class.into(), self.recipient)
    }

    /// In which order emails are to be given slots: bulk mail last.
    #[must_use]
    pub fn order(&self) -> (bool, Uuid) {
        (self.mail_class == MailClass::Bulk, self.delivery_id)
    }
}

/// Some recipients, locked until the end of the transaction, with all their slots. Nothing is written before
/// [`Slots::write`].
pub struct Slots<'a> {
    limits: &'a RecipientLimits,
    /// Of the transaction.
    now: OffsetDateTime,
    queues: BTreeMap<RecipientKey, RecipientQueue>,
    /// Where an email is found.
    recipients: HashMap<Uuid, RecipientKey>,
    loaded: HashMap<(Uuid, i32), Slot>,
    /// Emails that got their times here, which the caller writes.
    given: HashSet<Uuid>,
    moved: BTreeMap<Uuid, OffsetDateTime>,
}

impl<'a> Slots<'a> {
    /// Locks the recipients of emails that have slots, and those of `more`. All at once: who locked some and then others
    /// would wait in a circle.
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
            queues: BTreeMap::new(),
            recipients: HashMap::new(),
            loaded: HashMap::new(),
            given: HashSet::new(),
            moved: BTreeMap::new(),
        };
        if !keys.is_empty() {
            for slot in recipient_slot::lock(connection, &keys).await? {
                slots
                    .loaded
                    .insert((slot.delivery_id, slot.slot_number), slot);
                slots
                    .recipients
                    .insert(slot.delivery_id, slot.recipient_key);
                slots.queue(slot.recipient_key, slot.mail_class).load(slot);
            }
        }
        Ok(slots)
    }

    /// Gives a new email its slot. Answers when it goes, or `None` if its link would expire before.
    pub fn reserve(&mut self, email: &Email<'_>) -> Option<OffsetDateTime> {
        let slot = self.new_slot(email);
        self.queue(slot.recipient_key, slot.mail_class)
            .reserve(slot, email.expire_time)
    }

    /// Whether an email that is due may go at this moment.
    pub fn take_turn(&mut self, email: &Email<'_>) -> Turn {
        let slot = self.new_slot(email);
        self.queue(slot.recipient_key, slot.mail_class)
            .take_turn(slot, email.expire_time)
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
        for delivery_id in delivery_ids {
            if let Some(queue) = self.queue_of(*delivery_id) {
                queue.free(*delivery_id);
            }
        }
        self.plan(connection).await
    }

    /// Lets an email that the sender did not get rid of wait for its next slot, as its outcome then says.
    fn put_off(&mut self, claim: &Claim, outcome: &mut Outcome, next: Next) {
        let until = next.time_after(self.now);
        let may_have_arrived = outcome.attempt == Attempt::MayHaveArrived;
        self.given.insert(claim.delivery_id);
        let slot_time = match self.queue_of(claim.delivery_id) {
            Some(queue) => queue.put_off(
                claim.delivery_id,
                until,
                claim.expire_time,
                may_have_arrived,
            ),
            None => Some(until),
        };
        match slot_time {
            Some(slot_time) => outcome.wait_until(slot_time, slot_time - until >= NOTICEABLE),
            None => {
                outcome.give_up(expires_before(may_have_arrived || claim.unknown_count > 0));
            }
        }
    }

    /// Settles the slots of emails whose outcomes are to be recorded: those that are tried again get another, which their
    /// outcomes then say, and the others free theirs, unless they may have arrived.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn settle(
        &mut self,
        connection: &mut PgConnection,
        outcomes: impl IntoIterator<Item = &mut (Claim, Outcome)>,
    ) -> Result<(), sqlx::Error> {
        let (mut freed, mut others) = (Vec::new(), Vec::new());
        let now = self.now;
        for (claim, outcome) in outcomes {
            if let Some(next) = outcome.next {
                others.push((claim, outcome, next));
                continue;
            }
            // If it is late, this was noted when it was counted as lost.
            if outcome.attempt == Attempt::MayHaveArrived
                && !claim.entry.is_late
                && let Some(queue) = self.queue_of(claim.delivery_id)
            {
                queue.put_off(claim.delivery_id, now, claim.expire_time, true);
            }
            freed.push(claim.delivery_id);
        }
        self.free(connection, &freed).await?;
        others
            .sort_unstable_by_key(|(claim, ..)| (claim.lane == MailClass::Bulk, claim.delivery_id));
        for (claim, outcome, next) in others {
            self.put_off(claim, outcome, next);
        }
        Ok(())
    }

    /// Writes all of it. Answers the emails whose times changed.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn write(
        mut self,
        connection: &mut PgConnection,
    ) -> Result<Vec<DeliveryChange>, sqlx::Error> {
        self.plan(connection).await?;
        let changes =
            delivery::reschedule(connection, &self.moved, EXPIRES, LOST_AND_EXPIRES).await?;
        let failed = changes
            .iter()
            .filter(|change| change.state == DeliveryState::Failed);
        for delivery_id in failed.map(|change| change.delivery_id) {
            if let Some(queue) = self.queue_of(delivery_id) {
                queue.free(delivery_id);
            }
        }
        let mut unused = self.loaded;
        let mut written = Vec::new();
        for slot in self.queues.values().flat_map(RecipientQueue::slots) {
            if unused.remove(&(slot.delivery_id, slot.slot_number)) != Some(*slot) {
                written.push(*slot);
            }
        }
        let freed: Vec<_> = unused.into_keys().collect();
        recipient_slot::free(connection, &freed).await?;
        recipient_slot::write(connection, &written).await?;
        Ok(changes)
    }

    /// Plans the emails anew that others have at this moment not.
    async fn plan(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let given = &self.given;
        let is_waiting = |delivery_id| !given.contains(&delivery_id);
        let queues = self.queues.values();
        let movable: Vec<_> = queues
            .flat_map(|queue| queue.clone().plan(is_waiting))
            .map(|(delivery_id, _)| delivery_id)
            .collect();
        if movable.is_empty() {
            return Ok(());
        }
        let movable = delivery::lock_waiting(connection, &movable).await?;
        for queue in self.queues.values_mut() {
            self.moved
                .extend(queue.plan(|delivery_id| movable.contains(&delivery_id)));
        }
        Ok(())
    }

    fn new_slot(&mut self, email: &Email<'_>) -> Slot {
        let recipient_key = email.key();
        self.recipients.insert(email.delivery_id, recipient_key);
        self.given.insert(email.delivery_id);
        Slot {
            delivery_id: email.delivery_id,
            slot_number: 1,
            recipient_key,
            mail_class: email.mail_class,
            state: SlotState::Waiting,
            from_time: self.now,
            slot_time: self.now,
        }
    }

    fn queue(&mut self, key: RecipientKey, mail_class: MailClass) -> &mut RecipientQueue {
        let (window, now) = (*self.limits.get(mail_class.into()), self.now);
        self.queues
            .entry(key)
            .or_insert_with(|| RecipientQueue::new(window, now))
    }

    fn queue_of(&mut self, delivery_id: Uuid) -> Option<&mut RecipientQueue> {
        self.queues.get_mut(self.recipients.get(&delivery_id)?)
    }
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

/// Settles the slots of emails whose outcomes are to be recorded, of rows that are locked: those that may have arrived
/// have used theirs, those that are tried again get another, which their outcomes then say, and the others free theirs.
/// Answers the changes to publish.
///
/// # Errors
/// If the database fails.
pub async fn settle(
    connection: &mut PgConnection,
    limits: &RecipientLimits,
    now: OffsetDateTime,
    outcomes: &mut [(Claim, Outcome)],
) -> Result<Vec<DeliveryChange>, sqlx::Error> {
    // Most emails arrive, and need no lock.
    let (arrived, others): (Vec<_>, Vec<_>) = outcomes.iter_mut().partition(|(claim, outcome)| {
        let may_have_arrived = outcome.attempt == Attempt::MayHaveArrived;
        may_have_arrived && outcome.next.is_none() && !claim.entry.is_late
    });
    let arrived: Vec<_> = arrived.iter().map(|(claim, _)| claim.delivery_id).collect();
    recipient_slot::arrived(connection, &arrived).await?;
    if others.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<_> = others.iter().map(|(claim, _)| claim.delivery_id).collect();
    let mut slots = Slots::lock(connection, limits, now, &ids, []).await?;
    slots.settle(connection, others).await?;
    slots.write(connection).await
}
