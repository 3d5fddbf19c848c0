//! What the sender takes from the queue, and how it marks that it hands emails over.
//!
//! An email that is taken stays locked until the transaction ends, and is marked in it or left as it was. The mark has a
//! token and a lease: a process that dies leaves a lease that runs out, and the next one that takes the email finds the
//! token of a handover of which nobody knows the outcome.

use std::{collections::HashMap, time::Duration};

use sqlx::PgConnection;
use time::OffsetDateTime;
use usher_runtime::{seal::Sealed, trace_context::TraceContext};
use uuid::Uuid;

use crate::domain::{DeliveryState, MailClass, MailContent, MailKind, Recipient};

/// Emails that become ready at a time.
const PROMOTED: i64 = 1_000;

/// What can be taken from a lane.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// The lane.
    pub lane: MailClass,
    /// Most emails.
    pub count: usize,
    /// The organizations from this one on have their turn.
    pub from: Uuid,
}

/// A place in the queue that was visited: an organization of a lane, with one of its emails if it has one that can be
/// taken.
#[derive(Debug, Clone)]
pub struct Visited {
    /// The lane.
    pub lane: MailClass,
    /// The organization.
    pub organization_id: Uuid,
    /// What was taken.
    pub entry: Option<QueueEntry>,
}

/// The row of an email in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueEntry {
    /// The email.
    pub delivery_id: Uuid,
    /// When it was to go.
    pub due_time: OffsetDateTime,
    /// Whether a process had it whose lease has ended.
    pub was_held: bool,
    /// Whether our lease has ended, and it was counted as lost meanwhile.
    pub is_late: bool,
    /// The handover that was begun last.
    pub handover_token: Option<Uuid>,
    /// How often it was put back for a fault of the installation.
    pub put_back_count: i32,
    /// When a relay last refused it for a reason of policy.
    pub refuse_time: Option<OffsetDateTime>,
}

/// Locks ready emails: as many of each lane as are wanted, at most some more, shared among its organizations. An
/// organization with 100,000 emails takes no more than one with ten, so neither waits for the other. Passes what others
/// have locked.
///
/// # Errors
/// If the database fails.
pub async fn take(
    connection: &mut PgConnection,
    wanted: &[Wanted],
) -> Result<Vec<Visited>, sqlx::Error> {
    let lanes = wanted.iter().map(|wanted| wanted.lane.as_str().to_owned());
    let counts = wanted.iter().map(|wanted| i64::try_from(wanted.count));
    let rows = sqlx::query!(
        // Goes from one organization with ready mail to the next in the index, instead of reading all mail.
        r#"WITH RECURSIVE visited AS (
                SELECT lane.mail_class, lane.count, first.organization_id, 1 AS place
                FROM unnest($1::text[], $2::bigint[], $3::uuid[]) AS lane (mail_class, count, start)
                CROSS JOIN LATERAL (
                    SELECT organization_id FROM delivery_queue
                    WHERE ready AND mail_class = lane.mail_class AND organization_id >= lane.start
                    ORDER BY organization_id LIMIT 1) AS first
                UNION ALL
                SELECT visited.mail_class, visited.count, following.organization_id, visited.place + 1
                FROM visited CROSS JOIN LATERAL (
                    SELECT organization_id FROM delivery_queue
                    WHERE ready AND mail_class = visited.mail_class
                      AND organization_id > visited.organization_id
                    ORDER BY organization_id LIMIT 1) AS following
                WHERE visited.place < visited.count
           ), shared AS (
                SELECT mail_class, organization_id,
                    ceil(visited.count::float8 / count(*) OVER (PARTITION BY mail_class))::bigint AS share
                FROM visited
           )
           SELECT shared.mail_class AS "lane!: MailClass", shared.organization_id AS "organization_id!",
                due.delivery_id AS "delivery_id?", due.next_attempt_time AS "due_time?",
                due.lease_expire_time AS "lease_expire_time?", due.handover_token AS "handover_token?",
                due.put_back_count AS "put_back_count?", due.refuse_time AS "refuse_time?"
           FROM shared LEFT JOIN LATERAL (
                SELECT * FROM delivery_queue
                WHERE ready AND mail_class = shared.mail_class AND organization_id = shared.organization_id
                  AND (lease_expire_time IS NULL OR lease_expire_time <= now())
                ORDER BY next_attempt_time
                LIMIT shared.share
                FOR UPDATE SKIP LOCKED) AS due ON true"#,
        &lanes.collect::<Vec<_>>(),
        &counts.map(|count| count.unwrap_or(i64::MAX)).collect::<Vec<_>>(),
        &wanted.iter().map(|wanted| wanted.from).collect::<Vec<_>>()
    )
    .fetch_all(connection)
    .await?;
    let visited = rows.into_iter().map(|row| Visited {
        lane: row.lane,
        organization_id: row.organization_id,
        entry: row
            .delivery_id
            .zip(row.due_time)
            .map(|(delivery_id, due_time)| QueueEntry {
                delivery_id,
                due_time,
                was_held: row.lease_expire_time.is_some(),
                is_late: false,
                handover_token: row.handover_token,
                put_back_count: row.put_back_count.unwrap_or_default(),
                refuse_time: row.refuse_time,
            }),
    });
    Ok(visited.collect())
}

/// An email that this process has taken.
#[derive(Clone)]
pub struct Claim {
    /// The organization that it is sent for.
    pub organization_id: Uuid,
    /// The email.
    pub delivery_id: Uuid,
    /// The invitation that it belongs to.
    pub invitation_id: Option<Uuid>,
    /// Which email of the invitation, from 1.
    pub send_number: i32,
    /// Its lane.
    pub lane: MailClass,
    /// Where it stood.
    pub state: DeliveryState,
    /// Its place in the queue, with the token of our handover once it is marked.
    pub entry: QueueEntry,
    /// What has to be known to send it; `Err` if this version cannot read the row.
    pub mail: Result<Mail, &'static str>,
    /// What was found out about it in the same moment.
    pub status: ClaimStatus,
    /// Attempts so far that reached the relay.
    pub attempt_count: i32,
    /// Attempts so far whose answer was lost.
    pub unknown_count: i32,
    /// The time of the claim.
    pub claim_time: OffsetDateTime,
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

/// Reads emails that were taken, in their order, with what stops them.
///
/// # Errors
/// If the database fails.
pub async fn read(
    connection: &mut PgConnection,
    taken: &[Visited],
) -> Result<Vec<Claim>, sqlx::Error> {
    let entries = || {
        taken
            .iter()
            .filter_map(|visited| Some((visited, visited.entry?)))
    };
    let rows = sqlx::query_as!(
        ClaimedRow,
        r#"SELECT delivery.organization_id, delivery.delivery_id, invitation_id, send_number, kind, locale,
                delivery.recipient, content, delivery.expire_time, encapsulated_key, ciphertext, trace_context,
                state AS "state: DeliveryState", attempt_count, unknown_count, now() AS "claim_time!", delivery.expire_time <= now() AS "expired!",
                EXISTS (SELECT FROM revocations AS revocation
                    WHERE revocation.organization_id = delivery.organization_id
                      AND revocation.invitation_id = delivery.invitation_id
                      AND revocation.send_number >= delivery.send_number) AS "revoked!",
                EXISTS (SELECT FROM suppressions AS suppression
                    WHERE suppression.organization_id IN (delivery.organization_id,
                        '00000000-0000-0000-0000-000000000000')
                      AND suppression.recipient = lower(delivery.recipient)
                      AND delivery.mail_class = ANY (suppression.mail_classes)
                      AND (suppression.expire_time IS NULL OR suppression.expire_time > now()))
                    AS "suppressed!"
           FROM unnest($1::uuid[], $2::uuid[]) AS taken (organization_id, delivery_id)
           JOIN deliveries AS delivery USING (organization_id, delivery_id)"#,
        &entries().map(|(visited, _)| visited.organization_id).collect::<Vec<_>>(),
        &entries().map(|(_, entry)| entry.delivery_id).collect::<Vec<_>>()
    )
    .fetch_all(connection)
    .await?;
    let mut rows: HashMap<_, _> = rows.into_iter().map(|row| (row.delivery_id, row)).collect();
    let claims = entries().filter_map(|(visited, entry)| {
        Some(
            rows.remove(&entry.delivery_id)?
                .into_claim(visited.lane, entry),
        )
    });
    Ok(claims.collect())
}

/// A row that was read.
struct ClaimedRow {
    organization_id: Uuid,
    delivery_id: Uuid,
    invitation_id: Option<Uuid>,
    send_number: i32,
    kind: String,
    locale: String,
    recipient: String,
    content: serde_json::Value,
    expire_time: OffsetDateTime,
    encapsulated_key: Option<Vec<u8>>,
    ciphertext: Option<Vec<u8>>,
    trace_context: Option<String>,
    state: DeliveryState,
    attempt_count: i32,
    unknown_count: i32,
    claim_time: OffsetDateTime,
    expired: bool,
    revoked: bool,
    suppressed: bool,
}

impl ClaimedRow {
    fn into_claim(self, lane: MailClass, entry: QueueEntry) -> Claim {
        Claim {
            organization_id: self.organization_id,
            delivery_id: self.delivery_id,
            invitation_id: self.invitation_id,
            send_number: self.send_number,
            lane,
            state: self.state,
            entry,
            status: self.status(entry.was_held),
            attempt_count: self.attempt_count,
            unknown_count: self.unknown_count,
            claim_time: self.claim_time,
            expire_time: self.expire_time,
            trace_context: TraceContext(self.trace_context.clone()),
            mail: self.into_mail(),
        }
    }

    fn status(&self, was_held: bool) -> ClaimStatus {
        if was_held {
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
        let sealed = self.encapsulated_key.zip(self.ciphertext);
        let (encapsulated_key, ciphertext) = sealed.ok_or("an email without a token")?;
        Ok(Mail {
            kind: MailKind::try_from(self.kind.as_str()).map_err(|_| "unknown kind")?,
            locale: self.locale,
            recipient: Recipient::parse(&self.recipient).map_err(|_| "malformed recipient")?,
            content: serde_json::from_value(self.content).map_err(|_| "malformed content")?,
            sealed: Sealed {
                encapsulated_key,
                ciphertext,
            },
        })
    }
}

/// Marks emails that are locked as being handed over, for the time of `lease`.
///
/// # Errors
/// If the database fails.
pub async fn mark(
    connection: &mut PgConnection,
    claims: &[&Claim],
    handover_token: Uuid,
    lease: Duration,
) -> Result<(), sqlx::Error> {
    if claims.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE delivery_queue AS queue
         SET handover_token = $3, lease_expire_time = now() + make_interval(secs => $4)
         FROM unnest($1::uuid[], $2::uuid[]) AS claim (organization_id, delivery_id)
         WHERE queue.organization_id = claim.organization_id AND queue.delivery_id = claim.delivery_id",
        &claims.iter().map(|claim| claim.organization_id).collect::<Vec<_>>(),
        &claims.iter().map(|claim| claim.delivery_id).collect::<Vec<_>>(),
        handover_token,
        lease.as_secs_f64()
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// An email whose handover this process has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The organization.
    pub organization_id: Uuid,
    /// The email.
    pub delivery_id: Uuid,
    /// The handover.
    pub handover_token: Uuid,
}

impl Held {
    /// That of an email that was marked.
    #[must_use]
    pub fn of(claim: &Claim) -> Option<Self> {
        Some(Self {
            organization_id: claim.organization_id,
            delivery_id: claim.delivery_id,
            handover_token: claim.entry.handover_token?,
        })
    }
}

/// Renews leases, and answers those of which nobody has taken the email over.
///
/// # Errors
/// If the database fails.
pub async fn renew(
    connection: &mut PgConnection,
    held: &[Held],
    lease: Duration,
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        // In the order in which outcomes are recorded, so that both wait for each other instead of deadlocking.
        "WITH held AS (
            SELECT queue.organization_id, queue.delivery_id FROM delivery_queue AS queue
            JOIN unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS held (organization_id, delivery_id, handover_token)
                USING (organization_id, delivery_id, handover_token)
            WHERE queue.lease_expire_time IS NOT NULL
            ORDER BY queue.delivery_id FOR UPDATE OF queue)
         UPDATE delivery_queue AS queue SET lease_expire_time = now() + make_interval(secs => $4)
         FROM held
         WHERE queue.organization_id = held.organization_id AND queue.delivery_id = held.delivery_id
         RETURNING queue.delivery_id",
        &held.iter().map(|held| held.organization_id).collect::<Vec<_>>(),
        &held.iter().map(|held| held.delivery_id).collect::<Vec<_>>(),
        &held.iter().map(|held| held.handover_token).collect::<Vec<_>>(),
        lease.as_secs_f64()
    )
    .fetch_all(connection)
    .await
}

/// What waits for its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promoted {
    /// Emails whose time has come.
    pub count: u64,
    /// How long until the next one's, if one waits. Zero if more have come than could be promoted at once.
    pub next: Option<Duration>,
}

/// Makes emails ready whose time has come.
///
/// # Errors
/// If the database fails.
pub async fn promote(connection: &mut PgConnection) -> Result<Promoted, sqlx::Error> {
    let promoted = sqlx::query!(
        "UPDATE delivery_queue SET ready = true WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM delivery_queue
            WHERE NOT ready AND next_attempt_time <= now()
            ORDER BY next_attempt_time LIMIT $1
            FOR UPDATE SKIP LOCKED))",
        PROMOTED
    )
    .execute(&mut *connection)
    .await?;
    let seconds = sqlx::query_scalar!(
        r#"SELECT extract(epoch FROM min(next_attempt_time) - clock_timestamp())::float8 AS seconds
           FROM delivery_queue WHERE NOT ready"#
    )
    .fetch_one(connection)
    .await?;
    Ok(Promoted {
        count: promoted.rows_affected(),
        next: seconds.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default()),
    })
}
