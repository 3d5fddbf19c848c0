//! What notify-svc reports about the emails of invitations.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

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

/// Takes reports over, for each invitation the newest one, unless a newer one arrived before. Reports on unknown
/// invitations are dropped.
///
/// # Errors
/// If the database fails.
pub async fn record_deliveries(
    connection: &mut PgConnection,
    reports: &[DeliveryReport],
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
            FROM invitations i JOIN report USING (organization_id, invitation_id)
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
    )
    .execute(connection)
    .await?;
    Ok(())
}
