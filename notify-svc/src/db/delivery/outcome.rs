//! What became of claimed emails, with the events that tell of it.

use std::{collections::HashSet, time::Duration};

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{
    Claim,
    change::{ChangedRow, to_publish},
};
use crate::domain::{DeliveryChange, DeliveryState};

/// What became of a claimed email.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Where it stands now.
    pub state: DeliveryState,
    /// When it is taken up again; `None` is final, and wipes its token.
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
        }
    }

    /// Waits until `time`, for a limit.
    #[must_use]
    pub fn throttled(time: OffsetDateTime) -> Self {
        Self {
            state: DeliveryState::Throttled,
            next: Some(Next::At(time)),
            attempt: Attempt::None,
            smtp_status: None,
            reason: None,
            suppress: false,
            publish: true,
        }
    }

    /// Back to the queue for `delay`, through no fault of the email.
    #[must_use]
    pub fn put_back(delay: Duration) -> Self {
        Self {
            state: DeliveryState::Queued,
            next: Some(Next::After(delay)),
            attempt: Attempt::None,
            smtp_status: None,
            reason: None,
            suppress: false,
            publish: false,
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
}

/// Locks those of the emails whose lease is still ours: what became of the others is left to whoever took them over.
/// Answers the time of the transaction.
///
/// # Errors
/// If the database fails.
pub async fn lock_held(
    connection: &mut PgConnection,
    outcomes: &mut Vec<(Claim, Outcome)>,
) -> Result<Option<OffsetDateTime>, sqlx::Error> {
    let (delivery_ids, lease_tokens): (Vec<_>, Vec<_>) = outcomes
        .iter()
        .map(|(claim, _)| (claim.delivery_id, claim.lease_token))
        .unzip();
    let held = sqlx::query!(
        r#"SELECT delivery.delivery_id, now() AS "now!"
           FROM deliveries AS delivery
           JOIN unnest($1::uuid[], $2::uuid[]) AS held (delivery_id, lease_token)
             ON delivery.delivery_id = held.delivery_id AND delivery.lease_token = held.lease_token
           ORDER BY delivery.delivery_id
           FOR UPDATE OF delivery"#,
        &delivery_ids,
        &lease_tokens
    )
    .fetch_all(connection)
    .await?;
    let ids: HashSet<_> = held.iter().map(|row| row.delivery_id).collect();
    outcomes.retain(|(claim, _)| ids.contains(&claim.delivery_id));
    Ok(held.first().map(|row| row.now))
}

/// Records what became of emails whose lease is still ours, and answers the changes to publish. Emails that another
/// process took over meanwhile are left to it.
///
/// # Errors
/// If the database fails.
pub async fn record(
    connection: &mut PgConnection,
    outcomes: &[(Claim, Outcome)],
) -> Result<Vec<DeliveryChange>, sqlx::Error> {
    fn column<T>(outcomes: &[(Claim, Outcome)], value: impl Fn(&Outcome) -> T) -> Vec<T> {
        outcomes.iter().map(|(_, outcome)| value(outcome)).collect()
    }
    let rows = change_deliveries!(
        r#"UPDATE deliveries AS delivery
           SET state = CASE WHEN outcome.publish THEN outcome.state ELSE delivery.state END,
               next_attempt_time = outcome.next_time,
               encapsulated_key = CASE WHEN outcome.next_time IS NULL THEN NULL ELSE encapsulated_key END,
               ciphertext = CASE WHEN outcome.next_time IS NULL THEN NULL ELSE ciphertext END,
               attempt_count = attempt_count + outcome.attempted::integer,
               unknown_count = unknown_count + (outcome.state = 'UNKNOWN')::integer,
               smtp_status = coalesce(outcome.smtp_status, delivery.smtp_status),
               reason = CASE WHEN outcome.publish THEN outcome.reason ELSE delivery.reason END,
               revision = revision + outcome.publish::integer,
               sent_time = CASE WHEN outcome.state = 'SENT' THEN now() ELSE sent_time END,
               lease_token = NULL, lease_expire_time = NULL, handing_over = false,
               update_time = now()
           FROM (SELECT *, coalesce(time, now() + make_interval(secs => delay)) AS next_time
                 FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::float8[], $5::timestamptz[],
                    $6::boolean[], $7::text[], $8::text[], $9::boolean[])
                    AS outcome (delivery_id, lease_token, state, delay, time, attempted, smtp_status,
                        reason, publish)) AS outcome
           WHERE delivery.delivery_id = outcome.delivery_id
             AND delivery.lease_token = outcome.lease_token"#,
        "outcome.publish",
        &outcomes.iter().map(|(claim, _)| claim.delivery_id).collect::<Vec<_>>(),
        &outcomes.iter().map(|(claim, _)| claim.lease_token).collect::<Vec<_>>(),
        &column(outcomes, |outcome| outcome.state.as_str().to_owned()),
        &column(outcomes, |outcome| outcome.next.and_then(Next::delay)) as &[Option<f64>],
        &column(outcomes, |outcome| outcome.next.and_then(Next::time)) as &[Option<OffsetDateTime>],
        &column(outcomes, |outcome| outcome.attempt != Attempt::None),
        &column(outcomes, |outcome| outcome.smtp_status.clone()) as &[Option<String>],
        &column(outcomes, |outcome| outcome.reason.map(str::to_owned)) as &[Option<String>],
        &column(outcomes, |outcome| outcome.publish)
    )
    .fetch_all(connection)
    .await?;
    Ok(to_publish(rows))
}
