//! How invitations end, with their tokens.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::state::InvitationState;

/// How the open invitations of an account end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The client used the link of this one; the others are superseded.
    Accepted(Uuid),
    /// Withdrawn by staff, or by a change of the email.
    Revoked,
    /// A newer one took their place.
    Superseded,
}

impl End {
    /// The invitation that was accepted.
    const fn accepted(self) -> Option<Uuid> {
        match self {
            Self::Accepted(invitation_id) => Some(invitation_id),
            Self::Revoked | Self::Superseded => None,
        }
    }

    /// The state of all others.
    const fn state(self) -> &'static str {
        match self {
            Self::Revoked => "REVOKED",
            Self::Accepted(_) | Self::Superseded => "SUPERSEDED",
        }
    }
}

/// An invitation that has ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// The organization.
    pub organization_id: Uuid,
    /// The invitation.
    pub invitation_id: Uuid,
    /// Number of its latest email.
    pub send_count: i32,
    /// Where its latest email stands; `None` while nothing was reported of that one.
    pub delivery_state: Option<InvitationState>,
    /// When it ended.
    pub end_time: OffsetDateTime,
}

impl Ended {
    /// Whether its latest email is not known to have left: it may wait, or be tried again.
    #[must_use]
    pub fn email_may_follow(&self) -> bool {
        !self.delivery_state.is_some_and(InvitationState::has_left)
    }
}

/// Ends the invitations that `$open` selects, and their tokens; `$open` locks them in the order of their keys, as
/// everything that locks several does. One that has expired by now stays expired, and so does its link.
macro_rules! end_invitations {
    ($open:literal, $how:expr, $($argument:expr),* $(,)?) => {
        sqlx::query_as!(
            Ended,
            "WITH open AS MATERIALIZED ("
                + $open
                + r#"), ended AS (
                UPDATE invitations i SET
                    end_state = CASE
                        WHEN i.invitation_id = $2 THEN 'ACCEPTED'
                        WHEN i.expire_time <= clock.now THEN 'EXPIRED'
                        ELSE $1
                    END,
                    end_time = least(i.expire_time, clock.now)
                FROM open, (SELECT clock_timestamp() AS now) AS clock
                WHERE i.organization_id = open.organization_id AND i.invitation_id = open.invitation_id
                RETURNING i.organization_id, i.invitation_id, i.send_count, i.end_state, i.end_time,
                    CASE WHEN i.delivery_send_number = i.send_count THEN i.delivery_state END AS delivery_state
            ), token AS (
                UPDATE tokens SET
                    revoked_time = CASE WHEN end_state = 'REVOKED' THEN end_time END,
                    superseded_time = CASE WHEN end_state = 'SUPERSEDED' THEN end_time END
                FROM ended
                WHERE tokens.organization_id = ended.organization_id
                    AND tokens.invitation_id = ended.invitation_id
                    AND used_time IS NULL AND revoked_time IS NULL AND superseded_time IS NULL
            )
            SELECT organization_id, invitation_id, send_count, delivery_state AS "delivery_state: InvitationState",
                end_time AS "end_time!"
            FROM ended"#,
            $how.state(),
            $how.accepted() as Option<Uuid>,
            $($argument),*
        )
    };
}

/// Ends all open invitations of an account, which is locked.
///
/// # Errors
/// If the database fails.
pub async fn end(
    connection: &mut PgConnection,
    organization_id: Uuid,
    account_id: Uuid,
    how: End,
) -> Result<Vec<Ended>, sqlx::Error> {
    end_invitations!(
        "SELECT organization_id, invitation_id FROM invitations
        WHERE organization_id = $3 AND account_id = $4 AND end_state IS NULL
        ORDER BY invitation_id FOR NO KEY UPDATE",
        how,
        organization_id,
        account_id,
    )
    .fetch_all(connection)
    .await
}

/// Ends those of the invitations named that are open, because newer emails have left. Their accounts are locked.
///
/// # Errors
/// If the database fails.
pub(super) async fn supersede(
    connection: &mut PgConnection,
    organization_ids: &[Uuid],
    invitation_ids: &[Uuid],
) -> Result<Vec<Ended>, sqlx::Error> {
    end_invitations!(
        "SELECT organization_id, invitation_id FROM invitations
        WHERE end_state IS NULL AND (organization_id, invitation_id) IN (
            SELECT * FROM unnest($3::uuid[], $4::uuid[]))
        ORDER BY organization_id, invitation_id FOR NO KEY UPDATE",
        End::Superseded,
        organization_ids,
        invitation_ids,
    )
    .fetch_all(connection)
    .await
}
