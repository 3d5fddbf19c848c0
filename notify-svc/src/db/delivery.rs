//! Emails: what the intake writes and what staff read. What stops them, and the sender's queries,
//! are in the modules below.

#[macro_use]
mod change;
mod cancel;
mod outcome;
mod queue;
mod retry;
mod schedule;

use std::time::Duration;

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

pub use self::{
    cancel::{Waiting, cancel, cancel_revoked, lock},
    outcome::{Attempt, Next, Outcome, PutBack, lock_held, record},
    queue::{
        Claim, ClaimStatus, Held, Mail, Promoted, QueueEntry, Visited, Wanted, mark, promote, read,
        renew, take,
    },
    retry::{lock_ended, requeue},
    schedule::{lock_waiting, refuse, reschedule, throttle},
};
use crate::domain::{DeliveryState, MailClass, MailRequest, Recipient};

/// An email that is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewDelivery {
    /// Its position in the batch of requests.
    pub index: usize,
    /// Its id.
    pub delivery_id: Uuid,
    /// The invitation was revoked before it arrived.
    pub revoked: bool,
    /// When it was asked for.
    pub create_time: OffsetDateTime,
}

/// A row to be inserted.
struct NewRow<'a> {
    /// Position of its request in the batch.
    index: usize,
    delivery_id: Uuid,
    request: &'a MailRequest,
}

impl<'a> NewRow<'a> {
    /// A row for each request, in the order of the unique key, so that two replicas wait for each other instead of
    /// deadlocking.
    fn of_requests(requests: &'a [MailRequest]) -> Vec<Self> {
        let mut rows: Vec<_> = requests
            .iter()
            .enumerate()
            .map(|(index, request)| Self {
                index,
                delivery_id: Uuid::now_v7(),
                request,
            })
            .collect();
        rows.sort_by_key(|row| {
            let request = row.request;
            (
                request.organization_id,
                request.invitation_id,
                request.send_number,
            )
        });
        rows
    }
}

/// Inserts emails, at once due, and returns those that are new: one for each invitation and send number.
///
/// # Errors
/// If the database fails.
pub async fn insert(
    connection: &mut PgConnection,
    requests: &[MailRequest],
) -> Result<Vec<NewDelivery>, sqlx::Error> {
    fn column<T>(rows: &[NewRow<'_>], value: impl Fn(&MailRequest) -> T) -> Vec<T> {
        rows.iter().map(|row| value(row.request)).collect()
    }
    if requests.is_empty() {
        return Ok(Vec::new());
    }
    let rows = NewRow::of_requests(requests);
    let contents = column(&rows, |request| serde_json::to_value(&request.content));
    let contents = contents.into_iter().collect::<Result<Vec<_>, _>>();
    let inserted = sqlx::query!(
        r#"WITH inserted AS (
                INSERT INTO deliveries (organization_id, delivery_id, invitation_id, send_number, kind,
                    mail_class, locale, recipient, content, expire_time, encapsulated_key, ciphertext,
                    trace_context, state)
                SELECT request.*, 'QUEUED'
                FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::integer[], $5::text[], $6::text[],
                    $7::text[], $8::text[], $9::jsonb[], $10::timestamptz[], $11::bytea[],
                    $12::bytea[], $13::text[]) AS request
                ON CONFLICT (organization_id, invitation_id, send_number) DO NOTHING
                RETURNING organization_id, delivery_id, invitation_id, send_number, mail_class, create_time
           ), queued AS (
                INSERT INTO delivery_queue (organization_id, delivery_id, mail_class, next_attempt_time, ready)
                SELECT organization_id, delivery_id, mail_class, create_time, true FROM inserted
           )
           SELECT delivery_id, create_time, EXISTS (
                SELECT FROM revocations AS revocation
                WHERE revocation.organization_id = inserted.organization_id
                  AND revocation.invitation_id = inserted.invitation_id
                  AND revocation.send_number >= inserted.send_number) AS "revoked!"
           FROM inserted"#,
        &column(&rows, |request| request.organization_id),
        &rows.iter().map(|row| row.delivery_id).collect::<Vec<_>>(),
        &column(&rows, |request| request.invitation_id),
        &column(&rows, |request| request.send_number),
        &column(&rows, |request| request.kind.as_str().to_owned()),
        &column(&rows, |request| request.mail_class.as_str().to_owned()),
        &column(&rows, |request| request.locale.clone()),
        &column(&rows, |request| request.recipient.as_str().to_owned()),
        &contents.map_err(|error| sqlx::Error::Encode(error.into()))?,
        &column(&rows, |request| request.expire_time),
        &column(&rows, |request| request.sealed.encapsulated_key.clone()),
        &column(&rows, |request| request.sealed.ciphertext.clone()),
        &column(&rows, |request| request.trace_context.0.clone()) as &[Option<String>]
    )
    .fetch_all(connection)
    .await?;
    let mut new: Vec<_> = inserted
        .into_iter()
        .filter_map(|new| {
            let row = rows.iter().find(|row| row.delivery_id == new.delivery_id)?;
            Some(NewDelivery {
                index: row.index,
                delivery_id: new.delivery_id,
                revoked: new.revoked,
                create_time: new.create_time,
            })
        })
        .collect();
    // The order in which they were asked for decides who gets the earlier slot.
    new.sort_unstable_by_key(|delivery| delivery.index);
    Ok(new)
}

/// An email as staff see it.
pub struct Delivery {
    /// Its id.
    pub delivery_id: Uuid,
    /// The organization that it is sent for.
    pub organization_id: Uuid,
    /// The invitation that it belongs to.
    pub invitation_id: Option<Uuid>,
    /// Which email of the invitation.
    pub send_number: i32,
    /// The name of what it is for, which only newer versions may know.
    pub kind: String,
    /// BCP 47 tag.
    pub locale: String,
    /// How urgent it is.
    pub mail_class: MailClass,
    /// To whom it goes.
    pub recipient: Recipient,
    /// Where it stands.
    pub state: DeliveryState,
    /// When it is tried next.
    pub next_attempt_time: Option<OffsetDateTime>,
    /// Attempts that reached the relay.
    pub attempt_count: i32,
    /// Reply of the relay.
    pub smtp_status: Option<String>,
    /// Why, in words for staff.
    pub reason: Option<String>,
    /// When it was asked for.
    pub create_time: OffsetDateTime,
    /// When it last changed.
    pub update_time: OffsetDateTime,
    /// When the relay accepted it.
    pub sent_time: Option<OffsetDateTime>,
    /// It is not sent after this.
    pub expire_time: OffsetDateTime,
    /// The transaction that changed it last.
    pub change_xid: i64,
}

macro_rules! select_deliveries {
    ($tail:literal, $($argument:expr),* $(,)?) => {
        sqlx::query_as!(
            Delivery,
            r#"SELECT delivery_id, organization_id, invitation_id, send_number, kind,
                locale, delivery.mail_class AS "mail_class: MailClass", recipient AS "recipient: Recipient",
                state AS "state: DeliveryState", next_attempt_time AS "next_attempt_time?", attempt_count,
                smtp_status, reason, create_time, update_time, sent_time, expire_time,
                change_xid::text::bigint AS "change_xid!"
            FROM deliveries AS delivery
            LEFT JOIN delivery_queue AS queue USING (organization_id, delivery_id)
            WHERE organization_id = $1 "#
                + $tail,
            $($argument),*
        )
    };
}

/// One email of an organization.
///
/// # Errors
/// If the database fails.
pub async fn get(
    connection: &mut PgConnection,
    organization_id: Uuid,
    delivery_id: Uuid,
) -> Result<Option<Delivery>, sqlx::Error> {
    select_deliveries!("AND delivery_id = $2", organization_id, delivery_id)
        .fetch_optional(connection)
        .await
}

/// Which emails of an organization to list.
#[derive(Debug, Clone)]
pub struct DeliveryFilter {
    /// Only of this invitation.
    pub invitation_id: Option<Uuid>,
    /// Only in these states; none means all.
    pub states: Vec<DeliveryState>,
}

/// Up to `limit` emails, newest first, after the email `after`.
///
/// # Errors
/// If the database fails.
pub async fn list(
    connection: &mut PgConnection,
    organization_id: Uuid,
    filter: &DeliveryFilter,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Delivery>, sqlx::Error> {
    let states: Vec<String> = filter
        .states
        .iter()
        .map(|state| state.as_str().to_owned())
        .collect();
    // Ids are UUIDv7: their order is the order of creation, and the primary key serves it.
    let after = after.unwrap_or(Uuid::max());
    // A query for each filter: one for all would get a plan that is good for none.
    if let Some(invitation_id) = filter.invitation_id {
        select_deliveries!(
            "AND invitation_id = $2 AND (cardinality($3::text[]) = 0 OR state = ANY ($3))
             AND delivery_id < $4
             ORDER BY delivery_id DESC LIMIT $5",
            organization_id,
            invitation_id,
            &states,
            after,
            limit
        )
        .fetch_all(connection)
        .await
    } else if states.is_empty() {
        select_deliveries!(
            "AND delivery_id < $2
             ORDER BY delivery_id DESC LIMIT $3",
            organization_id,
            after,
            limit
        )
        .fetch_all(connection)
        .await
    } else {
        // The newest of each state, of which the newest: as quick for rare states as for common ones.
        select_deliveries!(
            "AND delivery_id = ANY (ARRAY(
                SELECT newest.delivery_id
                FROM unnest($2::text[]) AS wanted CROSS JOIN LATERAL (
                    SELECT delivery_id FROM deliveries
                    WHERE organization_id = $1 AND state = wanted AND delivery_id < $3
                    ORDER BY delivery_id DESC LIMIT $4) AS newest))
             ORDER BY delivery_id DESC LIMIT $4",
            organization_id,
            &states,
            after,
            limit
        )
        .fetch_all(connection)
        .await
    }
}

/// The oldest transaction that is still running: what it and later ones change is not seen yet.
///
/// # Errors
/// If the database fails.
pub async fn oldest_running(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(r#"SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS "xid!""#)
        .fetch_one(connection)
        .await
}

/// Up to `limit` emails, of one invitation or of all, that were changed last after `after`, which is a transaction and an
/// email, and before the transaction `until`; in this order.
///
/// # Errors
/// If the database fails.
pub async fn changed(
    connection: &mut PgConnection,
    organization_id: Uuid,
    invitation_id: Option<Uuid>,
    after: (i64, Uuid),
    until: i64,
    limit: i64,
) -> Result<Vec<Delivery>, sqlx::Error> {
    select_deliveries!(
        "AND (change_xid, delivery_id) > ($2::bigint::text::xid8, $3)
         AND change_xid < $4::bigint::text::xid8
         AND ($5::uuid IS NULL OR invitation_id = $5)
         ORDER BY change_xid, delivery_id LIMIT $6",
        organization_id,
        after.0,
        after.1,
        until,
        invitation_id,
        limit
    )
    .fetch_all(connection)
    .await
}

/// How many emails are ready and not sent, and for how long the oldest has been due.
///
/// # Errors
/// If the database fails.
pub async fn due(connection: &mut PgConnection) -> Result<(u64, Duration), sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT count(*) AS "length!",
               extract(epoch FROM now() - min(next_attempt_time))::float8 AS seconds
           FROM delivery_queue WHERE ready"#
    )
    .fetch_one(connection)
    .await?;
    let age = row
        .seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    Ok((row.length.unsigned_abs(), age.unwrap_or_default()))
}

/// Deletes at most `limit` emails that were asked for longer than `retention` ago and are not to be sent any
/// more.
///
/// # Errors
/// If the database fails.
pub async fn purge(
    connection: &mut PgConnection,
    retention: Duration,
    limit: i64,
) -> Result<u64, sqlx::Error> {
    let deleted = sqlx::query!(
        // Ids are UUIDv7 (RFC 9562, section 5.7): they begin with 48 bits of milliseconds, so the index on them
        // finds the oldest emails.
        "DELETE FROM deliveries WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM deliveries
            WHERE delivery_id < (lpad(to_hex(
                    (extract(epoch FROM now() - make_interval(secs => $1)) * 1000)::bigint), 12, '0')
                    || repeat('0', 20))::uuid
                AND state NOT IN ('QUEUED', 'THROTTLED', 'UNKNOWN')
            ORDER BY delivery_id LIMIT $2
            FOR UPDATE SKIP LOCKED))",
        retention.as_secs_f64(),
        limit
    )
    .execute(connection)
    .await?;
    Ok(deleted.rows_affected())
}

/// Wipes the tokens of at most `limit` failed emails whose links have expired: they cannot be sent again.
///
/// # Errors
/// If the database fails.
pub async fn wipe_tokens(connection: &mut PgConnection, limit: i64) -> Result<u64, sqlx::Error> {
    let wiped = sqlx::query!(
        "UPDATE deliveries SET encapsulated_key = NULL, ciphertext = NULL WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM deliveries
            WHERE state = 'FAILED' AND ciphertext IS NOT NULL AND expire_time <= now()
            ORDER BY expire_time LIMIT $1
            FOR UPDATE SKIP LOCKED))",
        limit
    )
    .execute(connection)
    .await?;
    Ok(wiped.rows_affected())
}
