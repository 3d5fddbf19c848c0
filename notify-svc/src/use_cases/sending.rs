//! From the queue to the relay, and what became of it.
//!
//! ```text
//! delivery_queue -> claim -> ready queue -> a worker for each connection -> recorder
//! ```
//!
//! Nothing is lost and nothing sent twice on purpose. [`claim`] marks an email durably before it can be handed over; its
//! outcome takes the mark away. A process that dies leaves a lease that runs out, and an email of which nobody knows what
//! became: it follows [`UnknownPolicy`].

pub mod backlog;
mod circuit_breaker;
mod claim;
mod judge;
mod lanes;
mod leases;
mod ready_queue;
mod record;
mod turns;
mod worker;
mod write;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::PgPool;
use tokio::{
    task::{JoinHandle, JoinSet},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use usher_runtime::{
    backoff::Backoff,
    database::{Scope, begin, within, without_data},
    health::Problems,
    seal::PrivateKey,
    wake::Wake,
};

use self::{
    circuit_breaker::CircuitBreaker, claim::Claimer, judge::Judge, lanes::Lanes, leases::Leases,
    ready_queue::ReadyQueue, record::Recorder, worker::Worker,
};
use crate::{
    db::delivery::{self, Next, Outcome},
    domain::RecipientLimits,
    limits::SharedLimits,
    mail::{Envelope, MailTransport},
    metrics::Metrics,
    render::Renderer,
};

/// How often the queue is looked at without being woken: what other replicas took in, and what a process that died has
/// left.
const POLL: Duration = Duration::from_secs(1);

/// Least time between two looks at what waits for its time.
const PAUSE: Duration = Duration::from_millis(10);

/// Longest time of one transaction; a database that takes longer counts as away.
const DATABASE_DEADLINE: Duration = Duration::from_secs(10);

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
    /// Emails that are handed over at the same time.
    pub connections: usize,
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

/// Wakes the sender, after the commit. Clones wake the same one.
#[derive(Debug, Clone, Default)]
pub struct Due {
    /// Emails are ready.
    pub ready: Wake,
    /// Emails have a time, or another one.
    pub scheduled: Wake,
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
    /// Wakes this sender.
    pub due: Due,
    /// Wakes the relay: events are in the outbox.
    pub outbox: Wake,
    /// Where figures go.
    pub metrics: Metrics,
    /// Where it says that the relay cannot be used.
    pub problems: Problems,
}

impl<T: MailTransport> Sender<T> {
    /// Sends until `stop`, then waits for what is under way.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let relay = self.transport.name();
        let judge = Judge {
            settings: self.settings,
            metrics: self.metrics.clone(),
            relay: CircuitBreaker::new(&relay, self.metrics.clone(), self.problems.clone()),
        };
        let queue = ReadyQueue::new(Lanes::new(self.settings.connections));
        let leases = Leases::new(self.pool.clone(), self.settings.lease);
        let (recorder, recording) = Recorder::spawn(&self, &relay, leases.clone());
        let mut workers = JoinSet::new();
        for _ in 0..self.settings.connections {
            let worker = Worker {
                transport: self.transport.clone(),
                queue: queue.clone(),
                judge: judge.clone(),
                leases: leases.clone(),
                recorder: recorder.clone(),
            };
            workers.spawn(worker.run());
        }
        let filler = Filler {
            claimer: Claimer::new(&self, judge.clone(), &relay),
            pool: self.pool.clone(),
            due: self.due.clone(),
            relay: judge.relay.clone(),
            queue: queue.clone(),
            leases: leases.clone(),
            recorder: recorder.clone(),
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(5)),
            look_at: Instant::now(),
        };
        let sending = async {
            filler.run(&stop).await;
            self.drain(&queue, workers, recorder, recording).await;
        };
        tokio::select! {
            () = sending => {}
            () = leases.renew() => {}
        }
    }

    /// Puts back what was not begun, and waits for what was, and until all is recorded.
    async fn drain(
        &self,
        queue: &ReadyQueue,
        mut workers: JoinSet<()>,
        recorder: Recorder,
        recording: JoinHandle<()>,
    ) {
        let drained = tokio::time::timeout(self.settings.drain, async {
            for ready in queue.close() {
                let outcome = Outcome::put_back(Next::After(Duration::ZERO));
                recorder.record(ready.claim, outcome).await;
            }
            while workers.join_next().await.is_some() {}
            drop(recorder);
            // An error means that it panicked, which it has logged.
            let _ = recording.await;
        });
        if drained.await.is_err() {
            tracing::warn!(
                emails = queue.under_way(),
                "still under way at the end; their leases will run out"
            );
        }
    }
}

/// Fills the ready queue.
struct Filler {
    claimer: Claimer,
    pool: PgPool,
    due: Due,
    relay: CircuitBreaker,
    queue: ReadyQueue,
    leases: Leases,
    recorder: Recorder,
    backoff: Backoff,
    /// When to look at what waits for its time.
    look_at: Instant,
}

impl Filler {
    /// Fills the queue until `stop`.
    async fn run(mut self, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            let pause = match within(DATABASE_DEADLINE, self.fill()).await {
                Ok(pause) => {
                    self.backoff.reset();
                    pause
                }
                Err(error) => {
                    let error = without_data(&error);
                    tracing::warn!(error, "emails cannot be claimed; trying again");
                    Pause::Sleep(self.backoff.next_delay())
                }
            };
            match pause {
                Pause::None => {}
                Pause::Sleep(pause) => tokio::select! {
                    () = stop.cancelled() => {}
                    // It may have shown that the relay works again.
                    () = self.queue.email_done() => {}
                    () = sleep(pause) => {}
                },
                Pause::UntilWoken(longest) => tokio::select! {
                    () = stop.cancelled() => {}
                    () = self.due.ready.notified() => {}
                    () = self.due.scheduled.notified() => self.look_at = Instant::now(),
                    () = self.until_there_is_room() => {}
                    () = sleep(longest) => {}
                },
            }
        }
    }

    /// Claims what there is room for. Answers how long to wait.
    async fn fill(&mut self) -> Result<Pause, sqlx::Error> {
        if let Some(open) = self.relay.open_for() {
            return Ok(Pause::Sleep(open));
        }
        // Woken when they can be recorded again.
        if self.recorder.is_failing() {
            return Ok(Pause::UntilWoken(POLL));
        }
        if self.look_at <= Instant::now() {
            self.promote().await?;
        }
        let mut room = self.queue.room();
        if self.relay.is_failing() {
            // One email of each lane finds out whether the relay is back.
            let one = usize::from(self.queue.under_way() == 0);
            room = room.map(|room| room.min(one));
        }
        let claimed = self.claimer.claim(room).await?;
        if claimed.scheduled {
            self.look_at = Instant::now();
        }
        self.leases.keep(&claimed.ready);
        self.queue.push(claimed.ready);
        if !self.relay.is_failing() && self.has_room() {
            return Ok(Pause::None);
        }
        let next = self
            .look_at
            .saturating_duration_since(Instant::now())
            .max(PAUSE);
        let longest = self
            .claimer
            .blocked_for()
            .map_or(next, |free| free.min(next));
        Ok(Pause::UntilWoken(longest.min(POLL)))
    }

    /// Whether there is more to claim and enough room for it: not for each email alone.
    fn has_room(&self) -> bool {
        if self.relay.is_failing() {
            return self.queue.under_way() == 0;
        }
        self.queue.is_half_empty(self.claimer.more())
    }

    /// Waits until an email is done and there is room.
    async fn until_there_is_room(&self) {
        loop {
            self.queue.email_done().await;
            if self.has_room() {
                return;
            }
        }
    }

    /// Makes emails ready whose time has come, and notes when the next one's comes.
    async fn promote(&mut self) -> Result<(), sqlx::Error> {
        let mut tx = begin(&self.pool, Scope::Platform).await?;
        let promoted = delivery::promote(&mut tx).await?;
        tx.commit().await?;
        // What is due and locked by another replica would make this a busy loop.
        let next = promoted.next.map_or(POLL, |next| next.clamp(PAUSE, POLL));
        self.look_at = Instant::now() + next;
        Ok(())
    }
}

/// How long to wait before the next claim.
enum Pause {
    /// Not at all.
    None,
    /// So long, or until an email is done.
    Sleep(Duration),
    /// Until there is something to do, at most so long.
    UntilWoken(Duration),
}
