use proptest::prelude::*;

use super::*;
use crate::domain::{LimitName, Recipient};

const DAY: Duration = Duration::from_hours(24);
const MINUTE: Duration = Duration::from_mins(1);

fn at(milliseconds: i64) -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + time::Duration::milliseconds(milliseconds)
}

fn seconds(seconds: i64) -> OffsetDateTime {
    at(seconds * 1_000)
}

/// The queue of a recipient, over time.
struct Model {
    queue: RecipientQueue,
    /// When emails arrived.
    arrived: Vec<OffsetDateTime>,
}

impl Model {
    fn new(most: u32, period: Duration, gap: Duration) -> Self {
        Self {
            queue: RecipientQueue::new(Window::new(most, period, gap), at(0)),
            arrived: Vec::new(),
        }
    }

    fn slot(&self, email: u128, mail_class: MailClass) -> Slot {
        let recipient = Recipient::parse("zoe@example.org").unwrap();
        Slot {
            delivery_id: Uuid::from_u128(email),
            slot_number: 1,
            recipient_key: RecipientKey::new(LimitName::Mail, &recipient),
            mail_class,
            state: SlotState::Waiting,
            from_time: self.queue.now,
            slot_time: self.queue.now,
        }
    }

    fn reserve(&mut self, email: u128, mail_class: MailClass) -> OffsetDateTime {
        let slot = self.slot(email, mail_class);
        self.queue.reserve(slot, far()).unwrap()
    }

    fn take_turn(&mut self, email: u128) -> Turn {
        let new = self.slot(email, MailClass::Interactive);
        self.queue.take_turn(new, far())
    }

    fn arrives(&mut self, email: u128) {
        for slot in &mut self.queue.slots {
            if slot.delivery_id == Uuid::from_u128(email) && slot.state == SlotState::Going {
                slot.state = SlotState::Gone;
                // The clock may have been set back meanwhile.
                slot.slot_time = slot.slot_time.max(self.queue.now);
                self.arrived.push(slot.slot_time);
            }
        }
    }

    /// The last slot of an email.
    fn last(&self, email: u128) -> Option<Slot> {
        let slots = self.queue.slots.iter();
        let own = slots.filter(|slot| slot.delivery_id == Uuid::from_u128(email));
        own.max_by_key(|slot| slot.slot_number).copied()
    }

    /// Takes what is due, a little late, as the sender does, and lets it arrive a little later, until all have arrived.
    /// Answers the emails in the order in which they went, with their times in seconds.
    fn send_all(&mut self, emails: u128) -> Vec<(u128, i64)> {
        let mut sent = Vec::new();
        while sent.len() < usize::try_from(emails).unwrap() {
            let waiting = (1..=emails).filter_map(|email| Some((self.last(email)?, email)));
            let waiting = waiting.filter(|(slot, _)| slot.state == SlotState::Waiting);
            let (slot, email) = waiting.min_by_key(|(slot, _)| slot.slot_time).unwrap();
            self.queue.now = slot.slot_time.max(self.queue.now) + Duration::from_millis(10);
            if self.take_turn(email) == Turn::Now {
                let second = (self.queue.now - at(0)).whole_seconds();
                self.queue.now += Duration::from_millis(50);
                self.arrives(email);
                sent.push((email, second));
            }
        }
        sent
    }
}

fn far() -> OffsetDateTime {
    seconds(1_000_000_000)
}

/// Each leaves some milliseconds after its time, so that the next is some milliseconds early.
#[test]
fn emails_that_are_due_a_little_early_keep_their_order() {
    let mut model = Model::new(5, DAY, MINUTE);
    for email in 1..=7 {
        model.reserve(email, MailClass::Interactive);
    }
    let sent = model.send_all(7);
    let expected = [0, 60, 120, 180, 240, 86_400, 86_460];
    assert_eq!(sent, (1..).zip(expected).collect::<Vec<_>>());
}

#[test]
fn no_day_is_lost_at_one_a_day() {
    let mut model = Model::new(1, DAY, Duration::ZERO);
    for email in 1..=5 {
        model.reserve(email, MailClass::Interactive);
    }
    let sent = model.send_all(5);
    let days: Vec<_> = sent
        .iter()
        .map(|(email, time)| (*email, time / 86_400))
        .collect();
    assert_eq!(days, [(1, 0), (2, 1), (3, 2), (4, 3), (5, 4)]);
}

/// The relay was away for half a second.
#[test]
fn an_email_that_is_put_off_stays_before_younger_ones() {
    let mut model = Model::new(1, DAY, Duration::ZERO);
    for email in 1..=2 {
        model.reserve(email, MailClass::Interactive);
    }
    assert_eq!(model.take_turn(1), Turn::Now);
    let (id, until) = (Uuid::from_u128(1), at(500));
    assert_eq!(model.queue.put_off(id, until, far(), false), Some(until));
    model.queue.plan(|_| true);
    let sent = model.send_all(2);
    assert_eq!(sent, [(1, 0), (2, 86_400)]);
}

#[test]
fn a_single_email_does_not_wait_behind_bulk_mail() {
    let mut model = Model::new(1, DAY, Duration::ZERO);
    for email in 1..=4 {
        model.reserve(email, MailClass::Bulk);
    }
    assert_eq!(model.take_turn(1), Turn::Now);
    assert_eq!(model.reserve(5, MailClass::Interactive), at(0) + DAY);
    let moved = model.queue.plan(|_| true);
    let expected = [2, 3, 4].map(|email| {
        (
            Uuid::from_u128(email),
            at(0) + DAY * u32::try_from(email).unwrap(),
        )
    });
    assert_eq!(moved, expected);
}

#[test]
fn an_email_that_may_have_arrived_has_used_its_slot() {
    let mut model = Model::new(1, DAY, Duration::ZERO);
    model.reserve(1, MailClass::Interactive);
    assert_eq!(model.take_turn(1), Turn::Now);
    let id = Uuid::from_u128(1);
    assert_eq!(
        model.queue.put_off(id, seconds(60), far(), true),
        Some(at(0) + DAY)
    );
    model.queue.free(id);
    assert_eq!(model.reserve(2, MailClass::Interactive), at(0) + DAY);
    // Whoever sends it once more all the same waits like others.
    assert_eq!(model.take_turn(1), Turn::At(at(0) + DAY));
}

#[test]
fn what_went_before_the_clock_was_set_back_counts_from_when_it_went() {
    let mut model = Model::new(1, DAY, Duration::ZERO);
    model.queue.now = seconds(100);
    model.reserve(1, MailClass::Interactive);
    assert_eq!(model.take_turn(1), Turn::Now);
    model.queue.now = seconds(50);
    let id = Uuid::from_u128(1);
    let next = model.queue.put_off(id, seconds(60), far(), true);
    assert_eq!(next, Some(seconds(100) + DAY));
}

#[test]
fn what_expires_before_its_slot_gets_none() {
    let mut model = Model::new(1, DAY, Duration::ZERO);
    let early = seconds(3_600);
    model.reserve(1, MailClass::Interactive);
    let second = model.slot(2, MailClass::Interactive);
    assert_eq!(model.queue.reserve(second, early), None);
    assert_eq!(model.take_turn(1), Turn::Now);
    assert_eq!(model.queue.take_turn(second, early), Turn::Never);
    let id = Uuid::from_u128(1);
    assert_eq!(model.queue.put_off(id, seconds(60), early, true), None);
    assert_eq!(model.last(2), None);
    assert_eq!(model.last(1).unwrap().state, SlotState::Gone);
}

/// Thousands of emails to one address hold up nothing.
#[test]
fn a_long_queue_is_planned_in_little_time() {
    let mut model = Model::new(5, DAY, MINUTE);
    for email in 1..=1_000 {
        model.reserve(email, MailClass::Bulk);
    }
    let slot = model.slot(1_001, MailClass::Bulk);
    assert_eq!(model.queue.reserve(slot, far()), None);
    let started = std::time::Instant::now();
    assert_eq!(model.reserve(1_002, MailClass::Interactive), at(0));
    assert_eq!(model.queue.plan(|_| true).len(), 1_000);
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
}

/// What happens to a recipient.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The clock goes on, or back.
    Clock(i64),
    Request(MailClass),
    /// One of several senders takes what is due, of each pair only the one that the mask says: others have the rest.
    Claim(u8),
    Arrives(u8),
    /// The relay refused it for now, the sender's process died, or the answer was lost.
    PutOff(u8, i64, bool),
    /// Resends, cancellations and what is given up.
    Cancel(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_i64..40_000).prop_map(Step::Clock),
        1 => (-5_000_i64..0).prop_map(Step::Clock),
        3 => prop_oneof![Just(MailClass::Interactive), Just(MailClass::Bulk)].prop_map(Step::Request),
        4 => any::<u8>().prop_map(Step::Claim),
        3 => any::<u8>().prop_map(Step::Arrives),
        1 => (any::<u8>(), 0_i64..20_000, any::<bool>()).prop_map(|(n, delay, lost)| Step::PutOff(n, delay, lost)),
        1 => any::<u8>().prop_map(Step::Cancel),
    ]
}

impl Model {
    fn in_state(&self, state: SlotState) -> Vec<u128> {
        let slots = self.queue.slots.iter();
        let in_state = slots.filter(|slot| slot.state == state);
        in_state.map(|slot| slot.delivery_id.as_u128()).collect()
    }

    fn run(&mut self, step: Step, next_email: &mut u128) {
        let one_of = |emails: Vec<u128>, n: u8| {
            (!emails.is_empty()).then(|| emails[usize::from(n) % emails.len()])
        };
        match step {
            Step::Clock(milliseconds) => {
                self.queue.now += time::Duration::milliseconds(milliseconds);
            }
            Step::Request(mail_class) => {
                *next_email += 1;
                self.reserve(*next_email, mail_class);
            }
            Step::Claim(mask) => {
                let mut due: Vec<_> = self.queue.slots.clone();
                due.retain(|slot| {
                    slot.state == SlotState::Waiting && slot.slot_time <= self.queue.now
                });
                due.sort_by_key(Slot::order);
                for (index, slot) in due.into_iter().enumerate() {
                    if mask >> (index % 8) & 1 == 1 {
                        self.take_turn(slot.delivery_id.as_u128());
                    }
                }
            }
            Step::Arrives(n) => {
                if let Some(email) = one_of(self.in_state(SlotState::Going), n) {
                    self.arrives(email);
                }
            }
            Step::PutOff(n, delay, lost) => {
                if let Some(email) = one_of(self.in_state(SlotState::Going), n) {
                    let until = self.queue.now + time::Duration::milliseconds(delay);
                    if lost {
                        let slot = self.last(email).unwrap();
                        self.arrived.push(slot.slot_time.max(self.queue.now));
                    }
                    self.queue
                        .put_off(Uuid::from_u128(email), until, far(), lost);
                }
            }
            Step::Cancel(n) => {
                if let Some(email) = one_of(self.in_state(SlotState::Waiting), n) {
                    self.queue.free(Uuid::from_u128(email));
                }
            }
        }
        self.queue.plan(|_| true);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever happens, no period holds one too many, nothing waits for those behind it, and no place is left unused.
    #[test]
    fn the_limit_holds_and_nobody_waits_in_vain(
        most in 1_u32..4,
        period in 1_u64..60,
        gap in 0_u64..10,
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let (period, gap) = (Duration::from_secs(period), Duration::from_secs(gap));
        let mut model = Model::new(most, period, gap);
        let mut next_email = 0;
        for step in steps {
            model.run(step, &mut next_email);
            let mut arrived = model.arrived.clone();
            arrived.sort_unstable();
            for emails in arrived.windows(most as usize + 1) {
                prop_assert!(emails[most as usize] - emails[0] >= period);
            }
            for emails in arrived.windows(2) {
                prop_assert!(emails[1] - emails[0] >= gap);
            }
            // Each waiting email goes at the first time that those before it leave.
            let queue = &model.queue;
            let waiting = queue.slots.iter().filter(|slot| slot.state == SlotState::Waiting);
            for slot in waiting {
                let now = queue.latest();
                let mut taken: Vec<_> = queue
                    .slots
                    .iter()
                    .filter(|other| other.state != SlotState::Waiting || other.order() < slot.order())
                    .map(|other| match other.state {
                        SlotState::Gone => other.slot_time,
                        SlotState::Going => now,
                        SlotState::Waiting => other.slot_time.max(now),
                    })
                    .collect();
                taken.sort_unstable();
                let first = queue.window.next_slot(&taken, slot.from_time.max(now));
                let shift = (slot.slot_time.max(now) - first).unsigned_abs();
                prop_assert!(shift < NOTICEABLE, "{shift:?}");
            }
        }
    }
}
