//! From the table of emails to the relay: claims what is due, sends it concurrently, records what became
//! of it.
//!
//! Nothing is lost and nothing sent twice on purpose. An email is claimed with a lease; right before it is
//! handed over it is marked, durably; its outcome clears the mark. A process that dies leaves a lease that
//! runs out: without the mark the email goes again, with it nobody knows, and it follows
//! [`UnknownPolicy`].

mod attempt;
pub mod backlog;
mod batch;
mod circuit_breaker;
mod lanes;
mod record;

use std::{sync::Arc, time::Duration};

use sqlx::PgPool;
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use usher_runtime::{
    backoff::Backoff,
    database::{Scope, begin, within, without_data},
    outbox,
    seal::PrivateKey,
    wake::Wake,
};

use self::{
    attempt::Attempts,
    circuit_breaker::CircuitBreaker,
    lanes::{Lanes, Room},
    record::Recorder,
};
use crate::{
    db::{
        delivery::{self, Claim, ClaimStatus, Lane, Outcome},
        throttle,
    },
    domain::{DeliveryChange, DeliveryState, NOTICEABLE, RecipientLimits, Turn},
    events,
    limits::SharedLimits,
    mail::{Envelope, MailTransport},
    metrics::Metrics,
    render::Renderer,
    use_cases::recipient_throttle::{self, Email, Slots},
};

/// How often due emails are looked for without being woken: what other replicas took in.
const POLL: Duration = Duration::from_secs(1);

/// Lease of an email that waits for a connection. Handing it over renews it, for
/// [`SenderSettings::lease`].
const CLAIM_LEASE: Duration = Duration::from_secs(30);

/// Longest time of one transaction; a database that takes longer counts as away.
const DATABASE_DEADLINE: Duration = Duration::from_secs(10);

/// Pause while there is more to claim than there is room for.
const PAUSE: Duration = Duration::from_millis(10);

/// What to do with an email when the relay's answer was lost after its final dot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum UnknownPolicy {
    /// Send it once more, with the same Message-ID: the recipient may get it twice.
    Resend,
    /// Give it up: the recipient may not get it at all.
    Fail,
}

/// How the sender works.
#[derive(Debug, Clone, Copy)]
pub struct SenderSettings {
    /// Emails that are worked on at the same time.
    pub capacity: usize,
    /// Time after which an email that was being handed over is taken from a process that does not answer
    /// any more.
    pub lease: Duration,
    /// Delay after the first refusal of an email; doubles with each.
    pub retry_base: Duration,
    /// Longest delay between two attempts.
    pub retry_max: Duration,
    /// What to do when an answer was lost.
    pub unknown_policy: UnknownPolicy,
    /// How long to wait before an email whose answer was lost is sent once more.
    pub unknown_delay: Duration,
    /// What a recipient can be sent.
    pub recipient_limits: RecipientLimits,
    /// Limits of domains, organizations and the relay.
    pub limits: SharedLimits,
    /// Longest that emails under way are waited for at the end.
    pub drain: Duration,
}

/// What the sender works with.
pub struct Sender<T> {
    /// The service's database.
    pub pool: PgPool,
    /// How emails leave.
    pub transport: T,
    /// What writes them.
    pub renderer: Arc<Renderer>,
    /// What opens sealed tokens.
    pub keys: Arc<[PrivateKey]>,
    /// What all emails have in common.
    pub envelope: Envelope,
    /// How it works.
    pub settings: SenderSettings,
    /// Wakes this sender: emails are due.
    pub due: Wake,
    /// Wakes the relay: events are in the outbox.
    pub outbox: Wake,
    /// Where figures go.
    pub metrics: Metrics,
}

impl<T: MailTransport> Sender<T> {
    /// Sends until `stop`, then waits for what is under way.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let relay = CircuitBreaker::new(&self.transport.name());
        let recorder = Recorder::new(&self);
        let attempts = Arc::new(Attempts::new(&self, relay.clone(), recorder, stop.clone()));
        let mut lanes = Lanes::new(self.settings.capacity);
        let mut tasks = JoinSet::new();
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        while !stop.is_cancelled() {
            while let Some(finished) = tasks.try_join_next() {
                lanes.finished(finished.ok());
            }
            let pause = if let Some(pause) = relay.open_for() {
                pause
            } else {
                let room = lanes.room(relay.is_failing());
                match within(DATABASE_DEADLINE, self.claim(room)).await {
                    Ok(claims) => {
                        backoff.reset();
                        let full = claims.len() >= room.total.max(1);
                        for claim in claims {
                            lanes.started(claim.lane);
                            tasks.spawn(deliver(Arc::clone(&attempts), claim));
                        }
                        if full || room.total == 0 {
                            PAUSE
                        } else {
                            self.until_next_due().await
                        }
                    }
                    Err(error) => {
                        tracing::warn!(
                            error = without_data(&error),
                            "emails cannot be claimed; trying again"
                        );
                        backoff.next_delay()
                    }
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.due.notified() => {}
                () = sleep(pause) => {}
            }
        }
        let drained = tokio::time::timeout(self.settings.drain, async {
            while tasks.join_next().await.is_some() {}
        });
        if drained.await.is_err() {
            tracing::warn!(
                emails = tasks.len(),
                "still under way at the end; their leases will run out"
            );
        }
    }

    /// Claims what there is room for. Whoever has to wait for a shared limit is let go at once, with the exact
    /// time at which it goes.
    async fn claim(&self, room: Room) -> Result<Vec<Claim>, sqlx::Error> {
        if room.total == 0 {
            return Ok(Vec::new());
        }
        let mut tx = begin(&self.pool, Scope::Platform).await?;
        let lease = CLAIM_LEASE.min(self.settings.lease);
        let mut claims = Vec::new();
        for (lane, share) in room.shares() {
            let limit = share.min(room.total - claims.len());
            claims.extend(delivery::claim(&mut tx, lane, limit, lease).await?);
        }
        for claim in &claims {
            self.metrics.claimed(claim.claim_time - claim.due_time);
        }
        let claims = self.reserve_slots(&mut tx, claims).await?;
        let claims = self.take_turns(&mut tx, claims).await?;
        tx.commit().await?;
        Ok(claims)
    }

    /// Lets those go whose recipients can be written to now.
    async fn take_turns(
        &self,
        connection: &mut sqlx::PgConnection,
        claims: Vec<Claim>,
    ) -> Result<Vec<Claim>, sqlx::Error> {
        let limits = &self.settings.recipient_limits;
        let Some(now) = claims.first().map(|claim| claim.claim_time) else {
            return Ok(claims);
        };
        let (mut sendable, mut going): (Vec<_>, Vec<_>) = claims
            .into_iter()
            .partition(|claim| claim.status == ClaimStatus::Sendable && claim.mail.is_ok());
        sendable.sort_unstable_by_key(|claim| (claim.lane, claim.delivery_id));
        let keys: Vec<_> = sendable
            .iter()
            .filter_map(email)
            .map(|it| it.key())
            .collect();
        let mut slots = Slots::lock(connection, limits, now, &[], keys).await?;
        let mut waiting = Vec::new();
        for claim in sendable {
            match email(&claim).map_or(Turn::Now, |email| slots.take_turn(&email)) {
                Turn::Now => going.push(claim),
                Turn::At(slot) => {
                    self.metrics.throttled(slot - now);
                    let mut outcome = Outcome::throttled(slot);
                    outcome.publish =
                        slot - now >= NOTICEABLE && claim.state != DeliveryState::Unknown;
                    waiting.push((claim, outcome));
                }
                Turn::Never => {
                    let reason = recipient_throttle::expires_before(claim.unknown_count > 0);
                    waiting.push((claim, Outcome::ended(DeliveryState::Failed, reason)));
                }
            }
        }
        let mut changes = slots.write(connection).await?;
        if !waiting.is_empty() {
            changes.extend(delivery::record(connection, &waiting).await?);
        }
        self.publish(connection, changes).await?;
        Ok(going)
    }

    async fn publish(
        &self,
        connection: &mut sqlx::PgConnection,
        changes: Vec<DeliveryChange>,
    ) -> Result<(), sqlx::Error> {
        if changes.is_empty() {
            return Ok(());
        }
        self.metrics
            .states(changes.iter().map(|change| change.state));
        let events = changes.into_iter().map(events::delivery_changed).collect();
        outbox::add(connection, events).await
    }

    async fn reserve_slots(
        &self,
        connection: &mut sqlx::PgConnection,
        claims: Vec<Claim>,
    ) -> Result<Vec<Claim>, sqlx::Error> {
        if self.settings.limits.is_empty() {
            return Ok(claims);
        }
        let limits: Vec<_> = claims
            .iter()
            .map(|claim| match &claim.mail {
                Ok(mail) if claim.status == ClaimStatus::Sendable && !claim.slots_reserved => self
                    .settings
                    .limits
                    .of(claim.organization_id, &mail.recipient),
                _ => Vec::new(),
            })
            .collect();
        let slots = throttle::reserve(connection, &limits).await?;
        let reserved: Vec<_> = claims
            .iter()
            .zip(&limits)
            .filter(|(_, limits)| !limits.is_empty())
            .map(|(claim, _)| claim.delivery_id)
            .collect();
        delivery::note_slots(connection, &reserved).await?;
        let mut sendable = Vec::new();
        let mut waiting = Vec::new();
        for (claim, slot) in claims.into_iter().zip(slots) {
            match slot {
                None => sendable.push(claim),
                Some(slot) => {
                    self.metrics.throttled(slot - claim.claim_time);
                    waiting.push((claim, Outcome::throttled(slot)));
                }
            }
        }
        let changes = delivery::record(connection, &waiting).await?;
        self.publish(connection, changes).await?;
        Ok(sendable)
    }

    async fn until_next_due(&self) -> Duration {
        let next_due = async {
            let mut tx = begin(&self.pool, Scope::Platform).await?;
            let next = delivery::next_due(&mut tx).await?;
            tx.commit().await?;
            Ok::<_, sqlx::Error>(next)
        };
        match within(DATABASE_DEADLINE, next_due).await {
            // Not at once: what is due and locked by another replica would make this a busy loop.
            Ok(Some(next)) => next.clamp(PAUSE, POLL),
            Ok(None) | Err(_) => POLL,
        }
    }
}

/// What the throttle has to know of an email; `None` if it cannot be read.
fn email(claim: &Claim) -> Option<Email<'_>> {
    let mail = claim.mail.as_ref().ok()?;
    Some(Email {
        delivery_id: claim.delivery_id,
        mail_class: claim.mail_class,
        recipient: &mail.recipient,
        expire_time: claim.expire_time,
    })
}

/// One attempt, in the trace of the event that asked for the email.
async fn deliver<T: MailTransport>(attempts: Arc<Attempts<T>>, claim: Claim) -> Lane {
    let lane = claim.lane;
    let span = tracing::info_span!(
        parent: None,
        "deliver",
        otel.kind = "client",
        organization.id = %claim.organization_id,
        invitation.id = %claim.invitation_id,
        delivery.id = %claim.delivery_id,
        delivery.attempt = claim.attempt_count + 1,
        delivery.state = tracing::field::Empty,
        smtp.status = tracing::field::Empty,
        trace.id = tracing::field::Empty,
    );
    claim.trace_context.set_parent_of(&span);
    attempts.deliver(claim).instrument(span).await;
    lane
}
