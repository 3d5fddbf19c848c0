//! What notify-svc reports about the emails of invitations.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::end::{self, Ended};

/// What notify-svc reports about an email.
#[derive(Debug, Clone)]
pub struct DeliveryReport {
    /// The organization.
    pub organization_id: Uuid,
    /// The invitation.
    pub invitation_id: Uuid,
    /// Which email of it.
    pub send_number: i32,
    /// Orders the reports on one email.
    pub revision: i64,
    /// A name of `InvitationState` without its prefix.
    pub state: &'static str,
    /// When a throttled email goes.
    pub throttled_until: Option<OffsetDateTime>,
    /// Why it failed; empty unless it did.
    pub failure_reason: String,
    /// When it was sent, as far as this report tells.
    pub sent_time: Option<OffsetDateTime>,
}

impl DeliveryReport {
    /// Of two reports on one invitation, the newer one. Of one email it has the earlier time of sending.
    fn newer(self, other: Self) -> Self {
        let sequence = |report: &Self| (report.send_number, report.revision);
        let (older, mut newer) = if sequence(&self) <= sequence(&other) {
            (self, other)
        } else {
            (other, self)
        };
        if older.send_number == newer.send_number {
            newer.sent_time = older.sent_time.into_iter().chain(newer.sent_time).min();
        }
        newer
    }
}

/// Takes reports over, for each invitation the newest one, unless a newer one arrived before. When one says that an
/// email has left, whichever order the reports come in, the older open invitations of its account are superseded;
/// those are answered. Reports on unknown invitations are dropped.
///
/// # Errors
/// If the database fails.
pub async fn record_deliveries(
    connection: &mut PgConnection,
    reports: &[DeliveryReport],
) -> Result<Vec<Ended>, sqlx::Error> {
    let (organization_ids, invitation_ids) = lock_older(connection, reports).await?;
    write(connection, reports, &organization_ids, &invitation_ids).await?;
    if invitation_ids.is_empty() {
        return Ok(Vec::new());
    }
    end::supersede(connection, &organization_ids, &invitation_ids).await
}

/// Finds the open invitations that are older than those whose email has left, and locks their accounts: whoever
/// activates, invites or revokes holds that lock. An invitation never becomes older than another one later, so what
/// is not found needs no lock.
async fn lock_older(
    connection: &mut PgConnection,
    reports: &[DeliveryReport],
) -> Result<(Vec<Uuid>, Vec<Uuid>), sqlx::Error> {
    let (organization_ids, invitation_ids): (Vec<_>, Vec<_>) = reports
        .iter()
        .filter(|report| report.sent_time.is_some())
        .map(|report| (report.organization_id, report.invitation_id))
        .unzip();
    if invitation_ids.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let older = sqlx::query!(
        "SELECT older.organization_id, older.invitation_id
        FROM unnest($1::uuid[], $2::uuid[]) AS sent (organization_id, invitation_id)
        JOIN invitations newer USING (organization_id, invitation_id)
        JOIN invitations older
            ON older.organization_id = newer.organization_id AND older.account_id = newer.account_id
            AND older.end_state IS NULL AND older.create_time < newer.create_time
        JOIN accounts a
            ON a.organization_id = newer.organization_id AND a.account_id = newer.account_id
        ORDER BY a.organization_id, a.account_id
        FOR NO KEY UPDATE OF a",
        &organization_ids,
        &invitation_ids,
    )
    .fetch_all(connection)
    .await?;
    let keys = older
        .into_iter()
        .map(|row| (row.organization_id, row.invitation_id));
    Ok(keys.unzip())
}

/// Writes the newest reports, and locks the invitations named in the same order.
async fn write(
    connection: &mut PgConnection,
    reports: &[DeliveryReport],
    older_organization_ids: &[Uuid],
    older_invitation_ids: &[Uuid],
) -> Result<(), sqlx::Error> {
    let mut newest: BTreeMap<(Uuid, Uuid), DeliveryReport> = BTreeMap::new();
    for report in reports {
        let key = (report.organization_id, report.invitation_id);
        let report = match newest.remove(&key) {
            Some(other) => other.newer(report.clone()),
            None => report.clone(),
        };
        newest.insert(key, report);
    }
    let column = |value: fn(&DeliveryReport) -> String| -> Vec<String> {
        newest.values().map(value).collect()
    };
    // The rows are locked in the order of their keys, so that two replicas wait for each other instead of
    // deadlocking.
    sqlx::query!(
        "WITH report AS MATERIALIZED (
            SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::integer[], $4::bigint[], $5::text[],
                $6::timestamptz[], $7::text[], $8::timestamptz[])
            AS report (organization_id, invitation_id, send_number, revision, state,
                throttled_until, failure_reason, sent_time)
        ), locked AS MATERIALIZED (
            SELECT i.organization_id, i.invitation_id
            FROM invitations i
            WHERE (i.organization_id, i.invitation_id) IN (
                SELECT organization_id, invitation_id FROM report
                UNION ALL SELECT * FROM unnest($9::uuid[], $10::uuid[]))
            ORDER BY i.organization_id, i.invitation_id
            FOR UPDATE OF i
        )
        UPDATE invitations i SET
            delivery_state = report.state,
            delivery_send_number = report.send_number,
            delivery_revision = report.revision,
            throttled_until = report.throttled_until,
            failure_reason = report.failure_reason,
            sent_time = CASE WHEN report.state = 'SENT' THEN report.sent_time
                ELSE coalesce(i.sent_time, report.sent_time) END
        FROM locked JOIN report USING (organization_id, invitation_id)
        WHERE i.organization_id = locked.organization_id AND i.invitation_id = locked.invitation_id
            AND (i.delivery_send_number, i.delivery_revision) < (report.send_number, report.revision)",
        &newest.keys().map(|key| key.0).collect::<Vec<_>>(),
        &newest.keys().map(|key| key.1).collect::<Vec<_>>(),
        &newest.values().map(|report| report.send_number).collect::<Vec<_>>(),
        &newest.values().map(|report| report.revision).collect::<Vec<_>>(),
        &column(|report| report.state.to_owned()),
        &newest.values().map(|report| report.throttled_until).collect::<Vec<_>>()
            as &[Option<OffsetDateTime>],
        &column(|report| report.failure_reason.clone()),
        &newest.values().map(|report| report.sent_time).collect::<Vec<_>>()
            as &[Option<OffsetDateTime>],
        older_organization_ids,
        older_invitation_ids,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Shows the email of an invitation as failed if there has been no report on it for ten minutes; answers when. A report
/// that arrives later counts for more. The account is locked.
///
/// # Errors
/// If the database fails.
pub async fn give_up(
    connection: &mut PgConnection,
    organization_id: Uuid,
    invitation_id: Uuid,
) -> Result<Option<OffsetDateTime>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"UPDATE invitations SET delivery_state = 'FAILED',
            failure_reason = 'nothing was heard of this email for 10 minutes; another took its place'
        WHERE organization_id = $1 AND invitation_id = $2 AND delivery_send_number = 0
            AND create_time < statement_timestamp() - interval '10 minutes'
        RETURNING statement_timestamp() AS "time!""#,
        organization_id,
        invitation_id,
    )
    .fetch_optional(connection)
    .await
}
