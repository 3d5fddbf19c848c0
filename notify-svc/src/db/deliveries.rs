//! Emails: what the intake writes and what staff read. The sender's part is in [`super::claims`] and
//! [`super::outcomes`].

use std::time::Duration;

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{domain::DeliveryState, events::DeliveryChange, intake::MailRequest};

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

/// Inserts emails, at once due, and returns those that are new: one for each invitation and send number.
///
/// # Errors
/// If the database fails.
pub async fn deliveries_insert(
    connection: &mut PgConnection,
    requests: &[MailRequest],
) -> Result<Vec<NewDelivery>, sqlx::Error> {
    // In the order of the unique key, so that two replicas wait for each other instead of deadlocking.
    let mut order: Vec<usize> = (0..requests.len()).collect();
    order.sort_by_key(|index| {
        let request = &requests[*index];
        (
            request.organization_id,
            request.invitation_id,
            request.send_number,
        )
    });
    let sorted: Vec<&MailRequest> = order.iter().map(|index| &requests[*index]).collect();
    let delivery_ids: Vec<Uuid> = sorted.iter().map(|_| Uuid::now_v7()).collect();
    let contents = sorted
        .iter()
        .map(|request| serde_json::to_value(&request.content))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| sqlx::Error::Encode(error.into()))?;
    let column = |value: fn(&MailRequest) -> String| -> Vec<String> {
        sorted.iter().map(|request| value(request)).collect()
    };
    let rows = sqlx::query!(
        r#"WITH inserted AS (
                INSERT INTO deliveries (organization_id, delivery_id, invitation_id, send_number, kind,
                    mail_class, locale, recipient, content, expire_time, encapsulated_key, ciphertext,
                    trace_context, state, next_attempt_time)
                SELECT request.*, 'QUEUED', now()
                FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::integer[], $5::text[], $6::text[],
                    $7::text[], $8::text[], $9::jsonb[], $10::timestamptz[], $11::bytea[],
                    $12::bytea[], $13::text[]) AS request
                ON CONFLICT (organization_id, invitation_id, send_number) DO NOTHING
                RETURNING organization_id, delivery_id, invitation_id, send_number, create_time)
           SELECT delivery_id, create_time, EXISTS (
                SELECT FROM revocations AS revocation
                WHERE revocation.organization_id = inserted.organization_id
                  AND revocation.invitation_id = inserted.invitation_id
                  AND revocation.send_number >= inserted.send_number) AS "revoked!"
           FROM inserted"#,
        &sorted.iter().map(|request| request.organization_id).collect::<Vec<_>>(),
        &delivery_ids,
        &sorted.iter().map(|request| request.invitation_id).collect::<Vec<_>>(),
        &sorted.iter().map(|request| request.send_number).collect::<Vec<_>>(),
        &column(|request| request.kind.as_str().to_owned()),
        &column(|request| request.mail_class.as_str().to_owned()),
        &column(|request| request.locale.clone()),
        &column(|request| request.recipient.as_str().to_owned()),
        &contents,
        &sorted.iter().map(|request| request.expire_time).collect::<Vec<_>>(),
        &sorted.iter().map(|request| request.sealed.encapsulated_key.clone()).collect::<Vec<_>>(),
        &sorted.iter().map(|request| request.sealed.ciphertext.clone()).collect::<Vec<_>>(),
        &sorted.iter().map(|request| request.trace_context.0.clone()).collect::<Vec<_>>()
            as &[Option<String>]
    )
    .fetch_all(connection)
    .await?;
    let new = rows.into_iter().filter_map(|row| {
        let position = delivery_ids.iter().position(|id| *id == row.delivery_id)?;
        Some(NewDelivery {
            index: order[position],
            delivery_id: row.delivery_id,
            revoked: row.revoked,
            create_time: row.create_time,
        })
    });
    let mut new: Vec<_> = new.collect();
    // The order in which they were asked for decides who gets the earlier slot.
    new.sort_unstable_by_key(|delivery| delivery.index);
    Ok(new)
}

/// Lets new emails wait for their slots.
///
/// # Errors
/// If the database fails.
pub async fn deliveries_throttle(
    connection: &mut PgConnection,
    slots: &[(Uuid, OffsetDateTime)],
) -> Result<(), sqlx::Error> {
    if slots.is_empty() {
        return Ok(());
    }
    let (delivery_ids, times): (Vec<_>, Vec<_>) = slots.iter().copied().unzip();
    sqlx::query!(
        "UPDATE deliveries SET state = 'THROTTLED', next_attempt_time = slot.time
         FROM unnest($1::uuid[], $2::timestamptz[]) AS slot (delivery_id, time)
         WHERE deliveries.delivery_id = slot.delivery_id",
        &delivery_ids,
        &times
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The change that the arrival of an email is.
#[must_use]
pub fn arrival(
    request: &MailRequest,
    delivery: &NewDelivery,
    throttled_until: Option<OffsetDateTime>,
) -> DeliveryChange {
    DeliveryChange {
        organization_id: request.organization_id,
        delivery_id: delivery.delivery_id,
        invitation_id: request.invitation_id,
        send_number: request.send_number,
        state: if throttled_until.is_some() {
            DeliveryState::Throttled
        } else {
            DeliveryState::Queued
        },
        revision: 1,
        throttled_until,
        smtp_status: None,
        reason: None,
        change_time: delivery.create_time,
        trace_context: request.trace_context.clone(),
    }
}

/// An email as staff see it.
pub struct DeliveryRow {
    /// Its id.
    pub delivery_id: Uuid,
    /// The organization that it is sent for.
    pub organization_id: Uuid,
    /// The invitation that it belongs to.
    pub invitation_id: Uuid,
    /// Which email of the invitation.
    pub send_number: i32,
    /// Name of its template.
    pub kind: String,
    /// BCP 47 tag.
    pub locale: String,
    /// How urgent it is.
    pub mail_class: String,
    /// Address, unmasked.
    pub recipient: String,
    /// Where it stands.
    pub state: String,
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
}

macro_rules! select_deliveries {
    ($tail:literal, $($argument:expr),* $(,)?) => {
        sqlx::query_as!(
            DeliveryRow,
            "SELECT delivery_id, organization_id, invitation_id, send_number, kind, locale, mail_class,
                recipient, state, next_attempt_time, attempt_count, smtp_status, reason, create_time,
                update_time, sent_time, expire_time
             FROM deliveries WHERE organization_id = $1 "
                + $tail,
            $($argument),*
        )
    };
}

/// One email of an organization.
///
/// # Errors
/// If the database fails.
pub async fn delivery_get(
    connection: &mut PgConnection,
    organization_id: Uuid,
    delivery_id: Uuid,
) -> Result<Option<DeliveryRow>, sqlx::Error> {
    select_deliveries!("AND delivery_id = $2", organization_id, delivery_id)
        .fetch_optional(connection)
        .await
}

/// Which emails of an organization to list.
#[derive(Debug, Clone)]
pub struct DeliveryFilter {
    /// The organization.
    pub organization_id: Uuid,
    /// Only of this invitation.
    pub invitation_id: Option<Uuid>,
    /// Only in these states; none means all.
    pub states: Vec<DeliveryState>,
}

/// Up to `limit` emails, newest first, after the email `after`.
///
/// # Errors
/// If the database fails.
pub async fn deliveries_list(
    connection: &mut PgConnection,
    filter: &DeliveryFilter,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<DeliveryRow>, sqlx::Error> {
    let states: Vec<String> = filter
        .states
        .iter()
        .map(|state| state.as_str().to_owned())
        .collect();
    let organization_id = filter.organization_id;
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

/// How many emails are due and not sent, and for how long the oldest has been due.
///
/// # Errors
/// If the database fails.
pub async fn deliveries_due(connection: &mut PgConnection) -> Result<(u64, Duration), sqlx::Error> {
    let row = sqlx::query!(
        // One half for each of the sender's indexes.
        r#"SELECT count(*) AS "length!",
               extract(epoch FROM now() - min(next_attempt_time))::float8 AS seconds
           FROM (
                SELECT next_attempt_time FROM deliveries
                WHERE next_attempt_time <= now() AND mail_class <> 'BULK'
                UNION ALL
                SELECT next_attempt_time FROM deliveries
                WHERE next_attempt_time <= now() AND mail_class = 'BULK'
           ) AS due"#
    )
    .fetch_one(connection)
    .await?;
    let age = row
        .seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    Ok((row.length.unsigned_abs(), age.unwrap_or_default()))
}
