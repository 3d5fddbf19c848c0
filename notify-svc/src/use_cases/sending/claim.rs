//! From the queue to emails that can be handed over, in one transaction: takes what is ready, checks what stops it and
//! which limits hold it back, writes it, and marks it as being handed over.
//!
//! One transaction, so that an email costs one commit before it is sent. It is marked before it waits for a connection:
//! what a process that dies has marked and not sent counts as possibly sent, and there is never more of it than
//! [`super::lanes::Lanes::queue`] says.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::{PgConnection, PgPool};
use usher_runtime::{
    database::{Scope, begin},
    outbox,
    wake::Wake,
};
use uuid::Uuid;

use super::{
    Sender,
    judge::Judge,
    lanes::{PerLane, index},
    ready_queue::ReadyMail,
    turns,
    write::{Fault, Writer, write_all},
};
use crate::{
    db::delivery::{self, Claim, Next, Outcome, Visited, Wanted},
    domain::{DeliveryChange, DeliveryState, MailClass, NOTICEABLE, RecipientKey, Turn},
    events,
    limits::SharedLimits,
    mail::OutgoingMail,
    throttle::Micros,
    use_cases::{
        recipient_throttle::{self, Email, Slots},
        shared_throttle::{Blocked, EmailLimits, Lines, SharedThrottle},
    },
};

/// Claims emails.
pub(super) struct Claimer {
    pool: PgPool,
    relay: String,
    limits: SharedLimits,
    judge: Judge,
    writer: Arc<Writer>,
    outbox: Wake,
    lines: Lines,
    /// The organization whose turn it is, in each lane.
    turns: PerLane<Uuid>,
    /// Whether a lane may have more that can be claimed at once.
    more: PerLane<bool>,
    /// Until when the relay's limit is used up for a lane.
    blocked_until: PerLane<Option<Instant>>,
}

/// What a claim has brought.
#[derive(Default)]
pub(super) struct Claimed {
    /// What can be handed over.
    pub ready: Vec<ReadyMail>,
    /// Emails were given a later time.
    pub scheduled: bool,
}

/// Claimed emails, sorted by what becomes of them.
#[derive(Default)]
struct Sorted {
    /// To be handed over, each with its limits, which are charged.
    going: Vec<(Claim, EmailLimits)>,
    /// Waiting for their recipients: the time is in the slots already.
    waiting: Vec<(Claim, Outcome)>,
    /// Waiting for another limit: others to their recipients do not wait for them.
    held_back: Vec<(Claim, Outcome)>,
    /// Ended, or put back: their slots are to be settled.
    stopped: Vec<(Claim, Outcome)>,
}

impl Claimer {
    pub(super) fn new<T>(sender: &Sender<T>, judge: Judge, relay: &str) -> Self {
        Self {
            pool: sender.pool.clone(),
            relay: relay.to_owned(),
            limits: sender.settings.limits,
            judge,
            writer: Arc::new(Writer {
                renderer: Arc::clone(&sender.renderer),
                keys: Arc::clone(&sender.keys),
                envelope: sender.envelope.clone(),
            }),
            outbox: sender.outbox.clone(),
            lines: Lines::default(),
            turns: PerLane::default(),
            more: PerLane::default(),
            blocked_until: PerLane::default(),
        }
    }

    /// The lanes of which more can be claimed at once.
    pub(super) fn more(&self) -> PerLane<bool> {
        MailClass::BY_URGENCY
            .map(|lane| self.more[index(lane)] && self.blocked_until[index(lane)].is_none())
    }

    /// How long until the relay's limit lets emails go again that wait for it.
    pub(super) fn blocked_for(&self) -> Option<Duration> {
        let now = Instant::now();
        let times = self.blocked_until.iter().flatten();
        times
            .map(|until| until.saturating_duration_since(now))
            .min()
    }

    /// Claims at most `room` emails of each lane.
    pub(super) async fn claim(&mut self, room: PerLane<usize>) -> Result<Claimed, sqlx::Error> {
        let started = Instant::now();
        let wanted = self.wanted(room, started);
        if wanted.is_empty() {
            return Ok(Claimed::default());
        }
        let mut tx = begin(&self.pool, Scope::Platform).await?;
        let visited = delivery::take(&mut tx, &wanted).await?;
        let taken: Vec<_> = wanted
            .iter()
            .flat_map(|wanted| self.choose(wanted, &visited))
            .collect();
        if taken.is_empty() {
            tx.commit().await?;
            return Ok(Claimed::default());
        }
        let mut claimed = Claimed::default();
        let claims = delivery::read(&mut tx, &taken).await?;
        let changes = self.prepare(&mut tx, claims, started, &mut claimed).await?;
        let states: Vec<_> = changes.iter().map(|change| change.state).collect();
        let has_events = !changes.is_empty();
        outbox::add(
            &mut tx,
            changes.into_iter().map(events::delivery_changed).collect(),
        )
        .await?;
        tx.commit().await?;
        self.judge.metrics.states(states);
        if has_events {
            self.outbox.notify();
        }
        Ok(claimed)
    }

    /// What is asked for: nothing from lanes without room, or for which the relay's limit is used up.
    fn wanted(&mut self, room: PerLane<usize>, now: Instant) -> Vec<Wanted> {
        for until in &mut self.blocked_until {
            *until = until.filter(|until| *until > now);
        }
        MailClass::BY_URGENCY
            .into_iter()
            .map(|lane| Wanted {
                lane,
                count: room[index(lane)],
                from: self.turns[index(lane)],
            })
            .filter(|wanted| wanted.count > 0 && self.blocked_until[index(wanted.lane)].is_none())
            .collect()
    }

    /// What is claimed of the emails that were taken from a lane.
    fn choose(&mut self, wanted: &Wanted, visited: &[Visited]) -> Vec<Visited> {
        let (chosen, next) = turns::take(wanted, visited);
        self.turns[index(wanted.lane)] = next;
        self.more[index(wanted.lane)] = chosen.len() >= wanted.count
            || !wanted.from.is_nil()
            || !next.is_nil() && !chosen.is_empty();
        chosen
    }

    /// Decides what becomes of each email and writes it down. Answers the changes to publish.
    async fn prepare(
        &mut self,
        connection: &mut PgConnection,
        claims: Vec<Claim>,
        started: Instant,
        claimed: &mut Claimed,
    ) -> Result<Vec<DeliveryChange>, sqlx::Error> {
        let Some(now) = claims.first().map(|claim| claim.claim_time) else {
            return Ok(Vec::new());
        };
        let recipient_limits = self.judge.settings.recipient_limits;
        let claims = in_order_of_recipients(claims);
        let keys: Vec<_> = claims
            .iter()
            .filter_map(email)
            .map(|email| email.key())
            .collect();
        let unreadable = claims.iter().filter(|claim| claim.mail.is_err());
        let ids: Vec<_> = unreadable.map(|claim| claim.delivery_id).collect();
        let mut slots = Slots::lock(connection, &recipient_limits, now, &ids, keys).await?;
        let limits: Vec<_> = claims.iter().map(|claim| self.limits_of(claim)).collect();
        let mut shared = SharedThrottle::lock(connection, &limits).await?;
        let mut sorted = self.sort(claims.into_iter().zip(limits), &mut slots, &mut shared);
        let going = std::mem::take(&mut sorted.going);
        claimed.ready = self
            .write(going, &mut shared, &mut sorted.stopped, started)
            .await;
        shared.write(connection).await?;

        let token = Uuid::now_v7();
        let marked: Vec<_> = claimed.ready.iter().map(|ready| &ready.claim).collect();
        delivery::mark(connection, &marked, token, self.judge.settings.lease).await?;
        for ready in &mut claimed.ready {
            ready.claim.entry.handover_token = Some(token);
        }
        let stopped = sorted.stopped.iter_mut().chain(&mut sorted.held_back);
        slots.settle(connection, stopped).await?;
        for (claim, outcome) in &sorted.stopped {
            tracing::info!(
                delivery.id = %claim.delivery_id,
                state = outcome.state.as_str(),
                reason = outcome.reason,
                again = outcome.next.is_some(),
                "delivery not attempted"
            );
        }
        let moved = slots.write(connection).await?;
        let mut outcomes = sorted.waiting;
        outcomes.append(&mut sorted.held_back);
        outcomes.append(&mut sorted.stopped);
        claimed.scheduled = !outcomes.is_empty();
        let recorded = delivery::record(connection, &outcomes, &self.relay).await?;
        Ok(recorded.into_iter().chain(moved).collect())
    }

    fn limits_of(&self, claim: &Claim) -> EmailLimits {
        match &claim.mail {
            Ok(mail) => self.limits.of(claim.organization_id, &mail.recipient),
            Err(_) => EmailLimits::new(),
        }
    }

    /// Checks what stops emails and which limits hold them back, the most urgent first.
    fn sort(
        &mut self,
        claims: impl Iterator<Item = (Claim, EmailLimits)>,
        slots: &mut Slots<'_>,
        shared: &mut SharedThrottle,
    ) -> Sorted {
        let mut sorted = Sorted::default();
        self.lines.forget_before(shared.now());
        for (claim, limits) in claims {
            self.judge
                .metrics
                .claimed(claim.claim_time - claim.entry.due_time);
            if let Some(outcome) = self.judge.stopped(&claim) {
                sorted.stopped.push((claim, outcome));
                continue;
            }
            let lines = (claim.lane == MailClass::Bulk).then_some(&mut self.lines);
            match shared.check(&limits, claim.organization_id, lines) {
                None => {}
                Some(Blocked::Relay(free)) => {
                    let delay = duration(free - shared.now());
                    let blocked_until = &mut self.blocked_until[index(claim.lane)];
                    if blocked_until.is_none() {
                        // It would have been the next.
                        self.turns[index(claim.lane)] = claim.organization_id;
                    }
                    *blocked_until = Some(Instant::now() + delay);
                    continue;
                }
                Some(Blocked::Until(time)) => {
                    let delay = duration(time - shared.now());
                    self.judge.metrics.throttled(delay);
                    let outcome = Outcome::put_back(Next::At(claim.claim_time + delay));
                    sorted.held_back.push((claim, outcome));
                    continue;
                }
            }
            match email(&claim).map_or(Turn::Now, |email| slots.take_turn(&email)) {
                Turn::Now => {
                    shared.charge(&limits);
                    sorted.going.push((claim, limits));
                }
                Turn::At(slot) => {
                    let delay = (slot - claim.claim_time).unsigned_abs();
                    self.judge.metrics.throttled(delay);
                    let mut outcome = Outcome::throttled(slot);
                    outcome.publish = delay >= NOTICEABLE && claim.state != DeliveryState::Unknown;
                    sorted.waiting.push((claim, outcome));
                }
                Turn::Never => {
                    let reason = recipient_throttle::expires_before(claim.unknown_count > 0);
                    let outcome = Outcome::ended(DeliveryState::Failed, reason);
                    sorted.waiting.push((claim, outcome));
                }
            }
        }
        sorted
    }

    /// Writes emails. What cannot be written is charged to no limit.
    async fn write(
        &self,
        going: Vec<(Claim, EmailLimits)>,
        shared: &mut SharedThrottle,
        stopped: &mut Vec<(Claim, Outcome)>,
        started: Instant,
    ) -> Vec<ReadyMail> {
        let (claims, limits): (Vec<_>, Vec<_>) = going.into_iter().unzip();
        let written: Vec<Result<OutgoingMail, Fault>> = write_all(&self.writer, &claims).await;
        let mut ready = Vec::new();
        for ((claim, limits), written) in claims.into_iter().zip(limits).zip(written) {
            match written {
                Ok(mail) => ready.push(ReadyMail {
                    claim,
                    mail,
                    marked: started,
                }),
                Err(fault) => {
                    shared.give_back(&limits);
                    let outcome = self.judge.not_written(&claim, fault);
                    stopped.push((claim, outcome));
                }
            }
        }
        ready
    }
}

fn duration(micros: Micros) -> Duration {
    Duration::from_micros(micros.max(0).unsigned_abs())
}

/// What the throttle has to know of an email; `None` if it cannot be read.
fn email(claim: &Claim) -> Option<Email<'_>> {
    let mail = claim.mail.as_ref().ok()?;
    Some(Email {
        delivery_id: claim.delivery_id,
        mail_class: claim.lane,
        recipient: &mail.recipient,
        expire_time: claim.expire_time,
    })
}

/// Lets emails to the same recipient change places, so that the one that was asked for first goes first.
fn in_order_of_recipients(claims: Vec<Claim>) -> Vec<Claim> {
    let mut places: BTreeMap<RecipientKey, Vec<usize>> = BTreeMap::new();
    for (place, claim) in claims.iter().enumerate() {
        if let Some(email) = email(claim) {
            places.entry(email.key()).or_default().push(place);
        }
    }
    let mut claims: Vec<_> = claims.into_iter().map(Some).collect();
    for places in places.into_values().filter(|places| places.len() > 1) {
        let mut theirs: Vec<_> = places
            .iter()
            .filter_map(|place| claims[*place].take())
            .collect();
        theirs.sort_unstable_by_key(|claim| (claim.lane == MailClass::Bulk, claim.delivery_id));
        for (place, claim) in places.into_iter().zip(theirs) {
            claims[place] = Some(claim);
        }
    }
    claims.into_iter().flatten().collect()
}
