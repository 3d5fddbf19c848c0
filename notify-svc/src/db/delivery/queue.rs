//! How the sender takes emails: with a lease that ends by itself and a token that proves who holds it.

use std::time::Duration;

use sqlx::PgConnection;
use time::OffsetDateTime;
use usher_runtime::{seal::Sealed, trace_context::TraceContext};
use uuid::Uuid;

use crate::domain::{DeliveryState, MailClass, MailContent, MailKind, Recipient};

/// Who shares the sender: mails that somebody waits for, and the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Interactive and security mail.
    Urgent,
    /// Bulk mail.
    Bulk,
}

/// An email that this process holds.
#[derive(Clone)]
pub struct Claim {
    /// The organization that it is sent for.
    pub organization_id: Uuid,
    /// The email.
    pub delivery_id: Uuid,
    /// The invitation that it belongs to.
    pub invitation_id: Uuid,
    /// Which email of the invitation, from 1.
    pub send_number: i32,
    /// Proves that the lease is still ours.
    pub lease_token: Uuid,
    /// Which share of the sender it takes.
    pub lane: Lane,
    /// How urgent it is.
    pub mail_class: MailClass,
    /// Where it stood.
    pub state: DeliveryState,
    /// What has to be known to send it; `Err` if this version cannot read the row.
    pub mail: Result<Mail, &'static str>,
    /// What was found out about it in the same moment.
    pub status: ClaimStatus,
    /// Attempts so far that reached the relay.
    pub attempt_count: i32,
    /// Attempts so far whose answer was lost.
    pub unknown_count: i32,
    /// Whether the limits of domain, organization and relay were passed.
    pub slots_reserved: bool,
    /// The time of the claim.
    pub claim_time: OffsetDateTime,
    /// When it was to go.
    pub due_time: OffsetDateTime,
    /// It is not sent after this.
    pub expire_time: OffsetDateTime,
    /// The trace that asked for it.
    pub trace_context: TraceContext,
}

/// What an email consists of.
#[derive(Clone)]
pub struct Mail {
    /// Its template.
    pub kind: MailKind,
    /// BCP 47 tag.
    pub locale: String,
    /// To whom it goes.
    pub recipient: Recipient,
    /// What it says.
    pub content: MailContent,
    /// The token of its link.
    pub sealed: Sealed,
}

/// Whether a claimed email is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimStatus {
    /// Send it.
    Sendable,
    /// The process that held it died while it was handing it over.
    HandedOver,
    /// The invitation was revoked.
    Revoked,
    /// The recipient gets no email from this organization.
    Suppressed,
    /// Its link has expired.
    Expired,
}

/// Takes up to `limit` due emails of a lane, for the time of `lease`.
///
/// # Errors
/// If the database fails.
pub async fn claim(
    connection: &mut PgConnection,
    lane: Lane,
    limit: usize,
    lease: Duration,
) -> Result<Vec<Claim>, sqlx::Error> {
    let due = match lane {
        Lane::Urgent => due_urgent(connection, limit).await?,
        Lane::Bulk => due_bulk(connection, limit).await?,
    };
    if due.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query_as!(
        ClaimedRow,
        r#"UPDATE deliveries AS delivery
           SET lease_token = gen_random_uuid(), lease_expire_time = now() + make_interval(secs => $2)
           WHERE delivery_id = ANY ($1)
           RETURNING organization_id, delivery_id, invitation_id, send_number,
                lease_token AS "lease_token!", mail_class AS "mail_class: MailClass",
                state AS "state: DeliveryState", kind, locale, recipient, content, expire_time, slots_reserved,
                encapsulated_key AS "encapsulated_key!", ciphertext AS "ciphertext!",
                trace_context, attempt_count, unknown_count, handing_over, now() AS "claim_time!",
                next_attempt_time AS "due_time!", expire_time <= now() AS "expired!",
                EXISTS (SELECT FROM revocations AS revocation
                    WHERE revocation.organization_id = delivery.organization_id
                      AND revocation.invitation_id = delivery.invitation_id
                      AND revocation.send_number >= delivery.send_number) AS "revoked!",
                EXISTS (SELECT FROM suppressions AS suppression
                    WHERE suppression.organization_id = delivery.organization_id
                      AND suppression.recipient = lower(delivery.recipient)) AS "suppressed!""#,
        &due,
        lease.as_secs_f64()
    )
    .fetch_all(connection)
    .await?;
    let mut claims: Vec<_> = rows.into_iter().map(|row| row.into_claim(lane)).collect();
    claims.sort_unstable_by_key(|claim| (claim.due_time, claim.delivery_id));
    Ok(claims)
}

/// A row that was claimed.
#[expect(clippy::struct_excessive_bools, reason = "columns, each read alone")]
struct ClaimedRow {
    organization_id: Uuid,
    delivery_id: Uuid,
    invitation_id: Uuid,
    send_number: i32,
    lease_token: Uuid,
    mail_class: MailClass,
    state: DeliveryState,
    kind: String,
    locale: String,
    recipient: String,
    content: serde_json::Value,
    expire_time: OffsetDateTime,
    slots_reserved: bool,
    encapsulated_key: Vec<u8>,
    ciphertext: Vec<u8>,
    trace_context: Option<String>,
    attempt_count: i32,
    unknown_count: i32,
    handing_over: bool,
    claim_time: OffsetDateTime,
    due_time: OffsetDateTime,
    expired: bool,
    revoked: bool,
    suppressed: bool,
}

impl ClaimedRow {
    fn into_claim(self, lane: Lane) -> Claim {
        Claim {
            organization_id: self.organization_id,
            delivery_id: self.delivery_id,
            invitation_id: self.invitation_id,
            send_number: self.send_number,
            lease_token: self.lease_token,
            lane,
            mail_class: self.mail_class,
            state: self.state,
            status: self.status(),
            attempt_count: self.attempt_count,
            unknown_count: self.unknown_count,
            slots_reserved: self.slots_reserved,
            claim_time: self.claim_time,
            due_time: self.due_time,
            expire_time: self.expire_time,
            trace_context: TraceContext(self.trace_context.clone()),
            mail: self.into_mail(),
        }
    }

    fn status(&self) -> ClaimStatus {
        if self.handing_over {
            ClaimStatus::HandedOver
        } else if self.revoked {
            ClaimStatus::Revoked
        } else if self.suppressed {
            ClaimStatus::Suppressed
        } else if self.expired {
            ClaimStatus::Expired
        } else {
            ClaimStatus::Sendable
        }
    }

    fn into_mail(self) -> Result<Mail, &'static str> {
        Ok(Mail {
            kind: MailKind::try_from(self.kind.as_str()).map_err(|_| "unknown kind")?,
            locale: self.locale,
            recipient: Recipient::parse(&self.recipient).map_err(|_| "malformed recipient")?,
            content: serde_json::from_value(self.content).map_err(|_| "malformed content")?,
            sealed: Sealed {
                encapsulated_key: self.encapsulated_key,
                ciphertext: self.ciphertext,
            },
        })
    }
}

// Two queries of the same shape, because each must repeat the condition of its index literally.

async fn due_urgent(connection: &mut PgConnection, limit: usize) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT delivery_id FROM deliveries
         WHERE next_attempt_time IS NOT NULL AND mail_class <> 'BULK'
           AND next_attempt_time <= now()
           AND (lease_expire_time IS NULL OR lease_expire_time <= now())
         ORDER BY next_attempt_time
         LIMIT $1
         FOR UPDATE SKIP LOCKED",
        i64::try_from(limit).unwrap_or(i64::MAX)
    )
    .fetch_all(connection)
    .await
}

async fn due_bulk(connection: &mut PgConnection, limit: usize) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT delivery_id FROM deliveries
         WHERE next_attempt_time IS NOT NULL AND mail_class = 'BULK'
           AND next_attempt_time <= now()
           AND (lease_expire_time IS NULL OR lease_expire_time <= now())
         ORDER BY next_attempt_time
         LIMIT $1
         FOR UPDATE SKIP LOCKED",
        i64::try_from(limit).unwrap_or(i64::MAX)
    )
    .fetch_all(connection)
    .await
}

/// How long until the next email is due or the next lease ends; `None` if none waits.
///
/// # Errors
/// If the database fails.
pub async fn next_due(connection: &mut PgConnection) -> Result<Option<Duration>, sqlx::Error> {
    let seconds = sqlx::query_scalar!(
        r#"SELECT extract(epoch FROM min(greatest(next_attempt_time, lease_expire_time))
                - clock_timestamp())::float8 AS seconds
           FROM (
                (SELECT next_attempt_time, lease_expire_time FROM deliveries
                 WHERE next_attempt_time IS NOT NULL AND mail_class <> 'BULK'
                 ORDER BY next_attempt_time LIMIT 100)
                UNION ALL
                (SELECT next_attempt_time, lease_expire_time FROM deliveries
                 WHERE next_attempt_time IS NOT NULL AND mail_class = 'BULK'
                 ORDER BY next_attempt_time LIMIT 100)
           ) AS waiting"#
    )
    .fetch_one(connection)
    .await?;
    Ok(seconds.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default()))
}

/// What became of an email that was to be marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// It is ours to hand over, and the mark is durable after the commit.
    Marked,
    /// The invitation was revoked meanwhile.
    Revoked,
    /// The lease ran out and another process took it, or it was cancelled.
    Lost,
}

/// Marks emails as being handed over and renews their leases. The answers are in the order of `claims`.
///
/// # Errors
/// If the database fails.
pub async fn mark(
    connection: &mut PgConnection,
    claims: &[(Uuid, Uuid)],
    lease: Duration,
) -> Result<Vec<Mark>, sqlx::Error> {
    let (delivery_ids, lease_tokens): (Vec<_>, Vec<_>) = claims.iter().copied().unzip();
    let rows = sqlx::query!(
        r#"UPDATE deliveries AS delivery
           SET handing_over = NOT EXISTS (SELECT FROM revocations AS revocation
                    WHERE revocation.organization_id = delivery.organization_id
                      AND revocation.invitation_id = delivery.invitation_id
                      AND revocation.send_number >= delivery.send_number),
               lease_expire_time = now() + make_interval(secs => $3)
           FROM unnest($1::uuid[], $2::uuid[]) AS held (delivery_id, lease_token)
           WHERE delivery.delivery_id = held.delivery_id
             AND delivery.lease_token = held.lease_token
           RETURNING delivery.delivery_id, delivery.handing_over"#,
        &delivery_ids,
        &lease_tokens,
        lease.as_secs_f64()
    )
    .fetch_all(connection)
    .await?;
    Ok(delivery_ids
        .iter()
        .map(|id| match rows.iter().find(|row| row.delivery_id == *id) {
            Some(row) if row.handing_over => Mark::Marked,
            Some(_) => Mark::Revoked,
            None => Mark::Lost,
        })
        .collect())
}

/// Notes that the limits of domain, organization and relay were passed.
///
/// # Errors
/// If the database fails.
pub async fn note_slots(
    connection: &mut PgConnection,
    delivery_ids: &[Uuid],
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE deliveries SET slots_reserved = true WHERE delivery_id = ANY ($1)",
        delivery_ids
    )
    .execute(connection)
    .await?;
    Ok(())
}
