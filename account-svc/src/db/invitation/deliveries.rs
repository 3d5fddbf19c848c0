//! What notify-svc reports about the emails of invitations.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::end::{self, Ended};
use crate::domain::state::InvitationState;

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
    /// The state that it gives the invitation, if that has not ended.
    pub state: InvitationState,
    /// When a throttled email goes.
    pub throttled_until: Option<OffsetDateTime>,
    /// Why it failed; empty unless it did.
    pub failure_reason: String,
    /// When it was sent, as far as this report tells.
    pub sent_time: Option<OffsetDateTime>,
}

impl DeliveryReport {
    /// Of two reports on one email, the newer one, with the earlier time of sending.
    fn newer(self, other: Self) -> Self {
        let (older, mut newer) = if self.revision <= other.revision {
            (self, other)
        } else {
            (other, self)
        };
        newer.sent_time = older.sent_time.into_iter().chain(newer.sent_time).min();
        newer
    }
}

/// What became of reports.
#[derive(Debug)]
pub struct Recorded {
    /// Invitations that were superseded.
    pub superseded: Vec<Ended>,
    /// Invitations with reports on emails that were never asked for, which were ignored.
    pub refused: Vec<Uuid>,
}

/// Takes reports over, for each invitation the newest one, unless a newer one arrived before. When one says that an
/// email has left, whichever order the reports come in, the older open invitations of its account are superseded.
/// Reports on unknown invitations are dropped, and those on emails that were never asked for. A time of sending that
/// is still to come counts as now, and an email waits at most until its link expires.
///
/// # Errors
/// If the database fails.
pub async fn record_deliveries(
    connection: &mut PgConnection,
    reports: &[DeliveryReport],
) -> Result<Recorded, sqlx::Error> {
    let (organization_ids, invitation_ids) = lock_older(connection, reports).await?;
    let refused = write(connection, reports, &organization_ids, &invitation_ids).await?;
    let superseded = if invitation_ids.is_empty() {
        Vec::new()
    } else {
        end::supersede(connection, &organization_ids, &invitation_ids).await?
    };
    Ok(Recorded {
        superseded,
        refused,
    })
}

/// Finds the open invitations that are older than those whose email has left, and locks their accounts: whoever
/// activates, invites or revokes holds that lock. An invitation never becomes older than another one later, so what
/// is not found needs no lock.
async fn lock_older(
    connection: &mut PgConnection,
    reports: &[DeliveryReport],
) -> Result<(Vec<Uuid>, Vec<Uuid>), sqlx::Error> {
    let sent: Vec<_> = reports
        .iter()
        .filter(|report| report.sent_time.is_some())
        .collect();
    if sent.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let older = sqlx::query!(
        "SELECT older.organization_id, older.invitation_id
        FROM unnest($1::uuid[], $2::uuid[], $3::integer[])
            AS sent (organization_id, invitation_id, send_number)
        JOIN invitations newer USING (organization_id, invitation_id)
        JOIN invitations older
            ON older.organization_id = newer.organization_id AND older.account_id = newer.account_id
            AND older.end_state IS NULL AND older.create_time < newer.create_time
        JOIN accounts a
            ON a.organization_id = newer.organization_id AND a.account_id = newer.account_id
        WHERE sent.send_number <= newer.send_count
        ORDER BY a.organization_id, a.account_id
        FOR NO KEY UPDATE OF a",
        &sent
            .iter()
            .map(|report| report.organization_id)
            .collect::<Vec<_>>(),
        &sent
            .iter()
            .map(|report| report.invitation_id)
            .collect::<Vec<_>>(),
        &sent
            .iter()
            .map(|report| report.send_number)
            .collect::<Vec<_>>(),
    )
    .fetch_all(connection)
    .await?;
    let keys = older
        .into_iter()
        .map(|row| (row.organization_id, row.invitation_id));
    Ok(keys.unzip())
}

/// Writes the newest reports, and locks the invitations named in the same order. Answers the invitations of which a
/// report was refused.
async fn write(
    connection: &mut PgConnection,
    reports: &[DeliveryReport],
    older_organization_ids: &[Uuid],
    older_invitation_ids: &[Uuid],
) -> Result<Vec<Uuid>, sqlx::Error> {
    let mut newest: BTreeMap<(Uuid, Uuid, i32), DeliveryReport> = BTreeMap::new();
    for report in reports {
        let key = (
            report.organization_id,
            report.invitation_id,
            report.send_number,
        );
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
    sqlx::query_scalar!(
        r#"WITH report AS MATERIALIZED (
            SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::integer[], $4::bigint[], $5::text[],
                $6::timestamptz[], $7::text[], $8::timestamptz[], $11::boolean[])
            AS report (organization_id, invitation_id, send_number, revision, state,
                throttled_until, failure_reason, sent_time, is_waiting)
        ), locked AS MATERIALIZED (
            SELECT i.organization_id, i.invitation_id, i.send_count
            FROM invitations i
            WHERE (i.organization_id, i.invitation_id) IN (
                SELECT organization_id, invitation_id FROM report
                UNION ALL SELECT * FROM unnest($9::uuid[], $10::uuid[]))
            ORDER BY i.organization_id, i.invitation_id
            FOR UPDATE OF i
        ), newest AS (
            SELECT DISTINCT ON (organization_id, invitation_id) report.*,
                CASE WHEN sent_time > statement_timestamp() THEN statement_timestamp() ELSE sent_time END
                    AS past_sent_time
            FROM locked JOIN report USING (organization_id, invitation_id)
            WHERE report.send_number <= locked.send_count
            ORDER BY organization_id, invitation_id, report.send_number DESC
        ), written AS (
            UPDATE invitations i SET
                delivery_state = newest.state,
                delivery_send_number = newest.send_number,
                delivery_revision = newest.revision,
                throttled_until = CASE WHEN newest.throttled_until > i.expire_time THEN i.expire_time
                    ELSE newest.throttled_until END,
                failure_reason = newest.failure_reason,
                sent_time = CASE WHEN newest.state = 'SENT' THEN newest.past_sent_time
                    ELSE coalesce(i.sent_time, newest.past_sent_time) END
            FROM newest
            WHERE i.organization_id = newest.organization_id AND i.invitation_id = newest.invitation_id
                AND (i.delivery_send_number, i.delivery_revision) < (newest.send_number, newest.revision)
                AND NOT (newest.is_waiting AND i.given_up_time IS NOT NULL)
        )
        SELECT invitation_id AS "invitation_id!"
        FROM locked JOIN report USING (organization_id, invitation_id)
        WHERE report.send_number > locked.send_count"#,
        &newest.keys().map(|key| key.0).collect::<Vec<_>>(),
        &newest.keys().map(|key| key.1).collect::<Vec<_>>(),
        &newest.keys().map(|key| key.2).collect::<Vec<_>>(),
        &newest.values().map(|report| report.revision).collect::<Vec<_>>(),
        &column(|report| report.state.as_str().to_owned()),
        &newest.values().map(|report| report.throttled_until).collect::<Vec<_>>()
            as &[Option<OffsetDateTime>],
        &column(|report| report.failure_reason.clone()),
        &newest.values().map(|report| report.sent_time).collect::<Vec<_>>()
            as &[Option<OffsetDateTime>],
        older_organization_ids,
        older_invitation_ids,
        &newest.values().map(|report| report.state.is_waiting()).collect::<Vec<_>>(),
    )
    .fetch_all(connection)
    .await
}

/// Shows the email of an invitation as failed if there has been no report on it for ten minutes; answers when. Waits for
/// a report that is being written. One that arrives later counts for more, unless it says that the email waits. The
/// account is locked.
///
/// # Errors
/// If the database fails.
pub async fn give_up(
    connection: &mut PgConnection,
    organization_id: Uuid,
    invitation_id: Uuid,
) -> Result<Option<OffsetDateTime>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"UPDATE invitations SET delivery_state = 'FAILED', given_up_time = statement_timestamp(),
            failure_reason = 'nothing was heard of this email for 10 minutes; another took its place'
        WHERE organization_id = $1 AND invitation_id = $2 AND delivery_send_number = 0
            AND create_time < statement_timestamp() - interval '10 minutes'
        RETURNING given_up_time AS "time!""#,
        organization_id,
        invitation_id,
    )
    .fetch_optional(connection)
    .await
}
