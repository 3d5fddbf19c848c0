//! Sending emails again that have failed.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::change::ChangedRow;
use crate::domain::{DeliveryChange, DeliveryState, MailClass, Recipient};

/// An email, locked, with what decides whether it can be sent again.
pub struct Ended {
    /// Where it stands.
    pub state: DeliveryState,
    /// How urgent it is.
    pub mail_class: MailClass,
    /// To whom it goes.
    pub recipient: Recipient,
    /// It is not sent after this.
    pub expire_time: OffsetDateTime,
    /// Its link can still be sent.
    pub has_token: bool,
    /// The invitation was revoked, or replaced by a newer one.
    pub is_revoked: bool,
    /// The time of the transaction.
    pub now: OffsetDateTime,
}

/// Locks an email of an organization. `None` if there is none.
///
/// # Errors
/// If the database fails.
pub async fn lock_ended(
    connection: &mut PgConnection,
    organization_id: Uuid,
    delivery_id: Uuid,
) -> Result<Option<Ended>, sqlx::Error> {
    sqlx::query_as!(
        Ended,
        r#"SELECT state AS "state: DeliveryState", mail_class AS "mail_class: MailClass",
                recipient AS "recipient: Recipient", expire_time, ciphertext IS NOT NULL AS "has_token!",
                EXISTS (SELECT FROM revocations AS revocation
                    WHERE revocation.organization_id = delivery.organization_id
                      AND revocation.invitation_id = delivery.invitation_id
                      AND revocation.send_number >= delivery.send_number) AS "is_revoked!",
                now() AS "now!"
           FROM deliveries AS delivery WHERE organization_id = $1 AND delivery_id = $2 FOR UPDATE"#,
        organization_id,
        delivery_id
    )
    .fetch_optional(connection)
    .await
}

/// Puts an email that is locked and has ended back into the queue, for `time`.
///
/// # Errors
/// If the database fails.
pub async fn requeue(
    connection: &mut PgConnection,
    organization_id: Uuid,
    delivery_id: Uuid,
    time: OffsetDateTime,
) -> Result<DeliveryChange, sqlx::Error> {
    let row = change_deliveries!(
        r#"WITH queued AS (
                INSERT INTO delivery_queue (organization_id, delivery_id, mail_class, next_attempt_time, ready)
                SELECT organization_id, delivery_id, mail_class, $3, $3 <= now()
                FROM deliveries WHERE organization_id = $1 AND delivery_id = $2
           )
           UPDATE deliveries AS delivery
           SET state = CASE WHEN $3 > now() THEN 'THROTTLED' ELSE 'QUEUED' END,
               smtp_status = NULL, reason = NULL, revision = revision + 1, change_xid = pg_current_xact_id(), update_time = now()
           WHERE organization_id = $1 AND delivery_id = $2"#,
        "$3",
        organization_id,
        delivery_id,
        time
    )
    .fetch_one(connection)
    .await?;
    Ok(row.into())
}
