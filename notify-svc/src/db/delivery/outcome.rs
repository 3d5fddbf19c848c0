//! What became of claimed emails, with the events that tell of it.

use std::{collections::HashMap, time::Duration};

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Claim, change::ChangedRow};
use crate::domain::{DeliveryChange, DeliveryState};

/// What became of a claimed email.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Where it stands now.
    pub state: DeliveryState,
    /// When it is taken up again; `None` is final, and wipes its token unless it failed.
    pub next: Option<Next>,
    /// What the relay made of it.
    pub attempt: Attempt,
    /// Reply of the relay.
    pub smtp_status: Option<String>,
    /// Why, in words for staff. No personal data.
    pub reason: Option<&'static str>,
    /// The mailbox does not exist.
    pub suppress: bool,
    /// Staff should see it: the change is published. False for what concerns all emails, like a relay that
    /// is away.
    pub publish: bool,
    /// Why it goes back to the queue through no fault of its own.
    pub put_back: Option<PutBack>,
}

/// Why an email goes back to the queue through no fault of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutBack {
    /// It cannot be written: a key, a template, or a newer version is missing. Counted, so that it waits longer each time.
    Unwritable,
    /// The relay went away before it had the whole of it. Counted too.
    Interrupted,
    /// The relay refuses it for a reason of policy, which may concern all emails. Its time is kept.
    Policy,
}

impl PutBack {
    const fn is_counted(self) -> bool {
        match self {
            Self::Unwritable | Self::Interrupted => true,
            Self::Policy => false,
        }
    }
}

/// How far an attempt went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// The relay did not see the email.
    None,
    /// It did not take it.
    Refused,
    /// It took it, or may have: the email has arrived, or may.
    MayHaveArrived,
}

/// When an email is taken up again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// So long after the outcome was recorded.
    After(Duration),
    /// At this time.
    At(OffsetDateTime),
}

impl Next {
    /// When that is, for an outcome that is recorded at `now`.
    #[must_use]
    pub fn time_after(self, now: OffsetDateTime) -> OffsetDateTime {
        match self {
            Self::After(delay) => now + delay,
            Self::At(time) => time,
        }
    }

    /// In seconds.
    fn delay(self) -> Option<f64> {
        match self {
            Self::After(delay) => Some(delay.as_secs_f64()),
            Self::At(_) => None,
        }
    }

    fn time(self) -> Option<OffsetDateTime> {
        match self {
            Self::After(_) => None,
            Self::At(time) => Some(time),
        }
    }
}

impl Outcome {
    /// An end, without an attempt.
    #[must_use]
    pub fn ended(state: DeliveryState, reason: &'static str) -> Self {
        Self {
            state,
            next: None,
            attempt: Attempt::None,
            smtp_status: None,
            reason: Some(reason),
            suppress: false,
            publish: true,
            put_back: None,
        }
    }

    /// Waits until `time`, for a limit.
    #[must_use]
    pub fn throttled(time: OffsetDateTime) -> Self {
        Self {
            state: DeliveryState::Throttled,
            publish: true,
            ..Self::put_back(Next::At(time))
        }
    }

    /// Back to the queue, through no fault of the email, and without a word to anybody.
    #[must_use]
    pub fn put_back(next: Next) -> Self {
        Self {
            state: DeliveryState::Queued,
            next: Some(next),
            attempt: Attempt::None,
            smtp_status: None,
            reason: None,
            suppress: false,
            publish: false,
            put_back: None,
        }
    }

    /// Is taken up at `time`. If that is later than it would be but for a limit, staff should see it.
    pub fn wait_until(&mut self, time: OffsetDateTime, for_a_limit: bool) {
        self.next = Some(Next::At(time));
        if for_a_limit && self.state == DeliveryState::Queued {
            self.state = DeliveryState::Throttled;
            self.publish = true;
        }
    }

    /// Is not taken up again after all.
    pub fn give_up(&mut self, reason: &'static str) {
        self.state = DeliveryState::Failed;
        self.next = None;
        self.reason = Some(reason);
        self.publish = true;
    }

    /// Nobody knows whether it has arrived.
    fn is_lost(&self) -> bool {
        self.attempt == Attempt::MayHaveArrived && self.state != DeliveryState::Sent
    }
}

/// Locks those of the emails whose outcomes count. Answers the time of the transaction.
///
/// What a relay answered stays true when the lease has ended; but what it refused is left to a later handover, if one was
/// begun. That an answer was lost counts once, for whoever finds it out first.
///
/// # Errors
/// If the database fails.
pub async fn lock_held(
    connection: &mut PgConnection,
    outcomes: &mut Vec<(Claim, Outcome)>,
) -> Result<Option<OffsetDateTime>, sqlx::Error> {
    let organization_ids: Vec<_> = outcomes
        .iter()
        .map(|(claim, _)| claim.organization_id)
        .collect();
    let delivery_ids: Vec<_> = outcomes
        .iter()
        .map(|(claim, _)| claim.delivery_id)
        .collect();
    let tokens: Vec<_> = outcomes
        .iter()
        .map(|(claim, _)| claim.entry.handover_token)
        .collect();
    let sent: Vec<_> = outcomes
        .iter()
        .map(|(_, outcome)| outcome.state == DeliveryState::Sent)
        .collect();
    let held = sqlx::query!(
        r#"SELECT queue.delivery_id, queue.lease_expire_time IS NULL AS "late!", now() AS "now!"
           FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::boolean[])
                AS held (organization_id, delivery_id, handover_token, sent)
           JOIN delivery_queue AS queue USING (organization_id, delivery_id)
           WHERE queue.handover_token = held.handover_token OR held.sent
           ORDER BY queue.delivery_id
           FOR UPDATE OF queue"#,
        &organization_ids,
        &delivery_ids,
        &tokens as &[Option<Uuid>],
        &sent
    )
    .fetch_all(connection)
    .await?;
    let late: HashMap<_, _> = held.iter().map(|row| (row.delivery_id, row.late)).collect();
    outcomes.retain_mut(|(claim, outcome)| {
        let Some(late) = late.get(&claim.delivery_id) else {
            return false;
        };
        claim.entry.is_late = *late;
        !late || !outcome.is_lost()
    });
    Ok(held.first().map(|row| row.now))
}

/// Records what became of emails whose rows are locked, and answers the changes to publish.
///
/// # Errors
/// If the database fails.
pub async fn record(
    connection: &mut PgConnection,
    outcomes: &[(Claim, Outcome)],
    relay: &str,
) -> Result<Vec<DeliveryChange>, sqlx::Error> {
    if outcomes.is_empty() {
        return Ok(Vec::new());
    }
    let next_times = update_queue(connection, outcomes).await?;
    let seen = outcomes.iter().filter(|(_, outcome)| outcome.publish);
    let seen: Vec<_> = seen
        .map(|(claim, outcome)| (claim, outcome, next_times.get(&claim.delivery_id).copied()))
        .collect();
    update_deliveries(connection, &seen, relay).await
}

/// Takes emails out of the queue, or gives them another time, which it answers.
async fn update_queue(
    connection: &mut PgConnection,
    outcomes: &[(Claim, Outcome)],
) -> Result<HashMap<Uuid, OffsetDateTime>, sqlx::Error> {
    fn column<T>(outcomes: &[(Claim, Outcome)], value: impl Fn(&Claim, &Outcome) -> T) -> Vec<T> {
        outcomes
            .iter()
            .map(|(claim, outcome)| value(claim, outcome))
            .collect()
    }
    let rows = sqlx::query!(
        r#"WITH outcome AS (
                SELECT *, coalesce(time, now() + make_interval(secs => delay)) AS next_time
                FROM unnest($1::uuid[], $2::uuid[], $3::float8[], $4::timestamptz[], $5::boolean[], $6::boolean[])
                    AS outcome (organization_id, delivery_id, delay, time, counted, refused_by_policy)
           ), ended AS (
                DELETE FROM delivery_queue AS queue USING outcome
                WHERE queue.organization_id = outcome.organization_id AND queue.delivery_id = outcome.delivery_id
                  AND outcome.next_time IS NULL
           )
           UPDATE delivery_queue AS queue
           SET next_attempt_time = outcome.next_time, ready = outcome.next_time <= now(),
               lease_expire_time = NULL, put_back_count = put_back_count + outcome.counted::integer,
               refuse_time = CASE WHEN outcome.refused_by_policy THEN now() ELSE refuse_time END
           FROM outcome
           WHERE queue.organization_id = outcome.organization_id AND queue.delivery_id = outcome.delivery_id
             AND outcome.next_time IS NOT NULL
           RETURNING queue.delivery_id, queue.next_attempt_time"#,
        &column(outcomes, |claim, _| claim.organization_id),
        &column(outcomes, |claim, _| claim.delivery_id),
        &column(outcomes, |_, outcome| outcome.next.and_then(Next::delay)) as &[Option<f64>],
        &column(outcomes, |_, outcome| outcome.next.and_then(Next::time)) as &[Option<OffsetDateTime>],
        &column(outcomes, |_, outcome| outcome.put_back.is_some_and(PutBack::is_counted)),
        &column(outcomes, |_, outcome| outcome.put_back == Some(PutBack::Policy))
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.delivery_id, row.next_attempt_time))
        .collect())
}

/// An outcome that staff see, with the time of the next attempt.
type Seen<'a> = (&'a Claim, &'a Outcome, Option<OffsetDateTime>);

/// Writes what staff see, and answers it as changes to publish.
async fn update_deliveries(
    connection: &mut PgConnection,
    outcomes: &[Seen<'_>],
    relay: &str,
) -> Result<Vec<DeliveryChange>, sqlx::Error> {
    fn column<T>(outcomes: &[Seen<'_>], value: impl Fn(&Outcome) -> T) -> Vec<T> {
        outcomes
            .iter()
            .map(|(_, outcome, _)| value(outcome))
            .collect()
    }
    if outcomes.is_empty() {
        return Ok(Vec::new());
    }
    let rows = change_deliveries!(
        r#"UPDATE deliveries AS delivery
           SET state = outcome.state,
               encapsulated_key = CASE WHEN outcome.next_time IS NOT NULL
                    OR outcome.state = 'FAILED' AND expire_time > now() THEN encapsulated_key END,
               ciphertext = CASE WHEN outcome.next_time IS NOT NULL
                    OR outcome.state = 'FAILED' AND expire_time > now() THEN ciphertext END,
               attempt_count = attempt_count + outcome.attempted::integer,
               unknown_count = unknown_count + (outcome.state = 'UNKNOWN')::integer,
               smtp_status = coalesce(outcome.smtp_status, delivery.smtp_status),
               relay = CASE WHEN outcome.attempted THEN $8 ELSE delivery.relay END,
               reason = outcome.reason, revision = revision + 1, change_xid = pg_current_xact_id(),
               sent_time = CASE WHEN outcome.state = 'SENT' THEN now() ELSE sent_time END,
               update_time = now()
           FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::timestamptz[], $5::boolean[], $6::text[], $7::text[])
                AS outcome (organization_id, delivery_id, state, next_time, attempted, smtp_status, reason)
           WHERE delivery.organization_id = outcome.organization_id
             AND delivery.delivery_id = outcome.delivery_id"#,
        "outcome.next_time",
        &outcomes.iter().map(|(claim, ..)| claim.organization_id).collect::<Vec<_>>(),
        &outcomes.iter().map(|(claim, ..)| claim.delivery_id).collect::<Vec<_>>(),
        &column(outcomes, |outcome| outcome.state.as_str().to_owned()),
        &outcomes.iter().map(|(.., next_time)| *next_time).collect::<Vec<_>>() as &[Option<OffsetDateTime>],
        &column(outcomes, |outcome| outcome.attempt != Attempt::None),
        &column(outcomes, |outcome| outcome.smtp_status.clone()) as &[Option<String>],
        &column(outcomes, |outcome| outcome.reason.map(str::to_owned)) as &[Option<String>],
        relay
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(DeliveryChange::from).collect())
}
