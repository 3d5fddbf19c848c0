//! Invitations.

mod deliveries;

use sqlx::PgConnection;
use time::OffsetDateTime;
use usher_runtime::page::Rows;
use uuid::Uuid;

pub use self::deliveries::{DeliveryReport, record_deliveries};
use super::MAX_SCANNED;
use crate::domain::state::{InvitationKind, InvitationState};

/// An invitation as it is read.
#[derive(Debug, Clone)]
pub struct Invitation {
    /// Identity.
    pub invitation_id: Uuid,
    /// The organization.
    pub organization_id: Uuid,
    /// The account.
    pub account_id: Uuid,
    /// What it asks.
    pub kind: InvitationKind,
    /// Its state, derived from facts.
    pub state: InvitationState,
    /// Address of the recipient.
    pub recipient: String,
    /// Emails that were asked for.
    pub send_count: i32,
    /// Who asked for it.
    pub requested_by: String,
    /// Form sent with it; empty means none.
    pub form_id: String,
    /// When a throttled email goes.
    pub throttled_until: Option<OffsetDateTime>,
    /// Why the email failed; empty unless it did.
    pub failure_reason: String,
    /// When it was asked for.
    pub create_time: OffsetDateTime,
    /// When the relay accepted the latest email.
    pub sent_time: Option<OffsetDateTime>,
    /// When the link stops working.
    pub expire_time: OffsetDateTime,
    /// When it was accepted, declined, revoked or superseded.
    pub end_time: Option<OffsetDateTime>,
}

/// Reads whole invitations; `$tail` follows the table.
macro_rules! select_invitations {
    ($tail:literal, $($argument:expr),* $(,)?) => {
        sqlx::query_as!(
            Invitation,
            r#"SELECT i.invitation_id, i.organization_id, i.account_id,
                i.kind AS "kind: InvitationKind", invitation_state(i) AS "state!: InvitationState", i.recipient, i.send_count, i.requested_by, i.form_id,
                i.throttled_until, i.failure_reason, i.create_time, i.sent_time, i.expire_time,
                i.end_time
            FROM invitations i
            WHERE i.organization_id = $1 "#
                + $tail,
            $($argument),*
        )
    };
}

/// Reads an invitation.
///
/// # Errors
/// If the database fails.
pub async fn get(
    connection: &mut PgConnection,
    organization_id: Uuid,
    invitation_id: Uuid,
) -> Result<Option<Invitation>, sqlx::Error> {
    select_invitations!("AND i.invitation_id = $2", organization_id, invitation_id)
        .fetch_optional(connection)
        .await
}

/// Lists invitations of an organization, newest first, after the one that the page before ended with: in any
/// of `states`, or in all if there are none. Looks at up to [`MAX_SCANNED`] of them.
///
/// # Errors
/// If the database fails.
pub async fn list(
    connection: &mut PgConnection,
    organization_id: Uuid,
    states: &[InvitationState],
    after: Option<Uuid>,
    limit: i64,
) -> Result<Rows<Invitation>, sqlx::Error> {
    let after = after.unwrap_or(Uuid::max());
    let states = state_names(states);
    let last = if states.is_empty() {
        None
    } else {
        sqlx::query_scalar!(
            "SELECT invitation_id FROM invitations
            WHERE organization_id = $1 AND invitation_id < $2
            ORDER BY invitation_id DESC OFFSET $3 LIMIT 1",
            organization_id,
            after,
            MAX_SCANNED - 1,
        )
        .fetch_optional(&mut *connection)
        .await?
    };
    let rows = select_invitations!(
        "AND (cardinality($2::text[]) = 0 OR invitation_state(i) = ANY($2))
            AND i.invitation_id < $3 AND i.invitation_id >= $4
        ORDER BY i.invitation_id DESC LIMIT $5",
        organization_id,
        &states,
        after,
        last.unwrap_or(Uuid::nil()),
        limit,
    )
    .fetch_all(connection)
    .await?;
    Ok(Rows {
        rows,
        last_scanned: last,
    })
}

/// As [`list`], of one account.
///
/// # Errors
/// If the database fails.
pub async fn list_of_account(
    connection: &mut PgConnection,
    organization_id: Uuid,
    account_id: Uuid,
    states: &[InvitationState],
    after: Option<Uuid>,
    limit: i64,
) -> Result<Rows<Invitation>, sqlx::Error> {
    let rows = select_invitations!(
        "AND i.account_id = $2
            AND (cardinality($3::text[]) = 0 OR invitation_state(i) = ANY($3))
            AND i.invitation_id < $4
        ORDER BY i.invitation_id DESC LIMIT $5",
        organization_id,
        account_id,
        &state_names(states),
        after.unwrap_or(Uuid::max()),
        limit,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into())
}

fn state_names(states: &[InvitationState]) -> Vec<String> {
    states
        .iter()
        .map(|state| state.as_str().to_owned())
        .collect()
}

/// An invitation to be created.
#[derive(Debug)]
pub struct NewInvitation<'a> {
    /// Identity.
    pub invitation_id: Uuid,
    /// The account.
    pub account_id: Uuid,
    /// What it asks.
    pub kind: InvitationKind,
    /// Address of the recipient.
    pub recipient: &'a str,
    /// The same in canonical form.
    pub recipient_canonical: &'a str,
    /// Language of the email.
    pub locale: &'a str,
    /// Who asks for it.
    pub requested_by: &'a str,
    /// Form sent with it; empty means none.
    pub form_id: &'a str,
    /// Where the link returns to; empty means the portal's start page.
    pub return_url: &'a str,
    /// How long it can be used.
    pub lifetime_seconds: i64,
    /// SHA-256 of its token.
    pub token_hash: &'a [u8],
}

/// Times of a new invitation.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// When it was created.
    pub create_time: OffsetDateTime,
    /// When its link stops working.
    pub expire_time: OffsetDateTime,
}

/// Creates an invitation with its token and makes it the newest of its account. The account must have no
/// other that is live.
///
/// # Errors
/// If the database fails.
pub async fn create(
    connection: &mut PgConnection,
    organization_id: Uuid,
    new: &NewInvitation<'_>,
) -> Result<Times, sqlx::Error> {
    sqlx::query_as!(
        Times,
        "WITH invitation AS (
            INSERT INTO invitations (
                organization_id, invitation_id, account_id, kind, recipient, recipient_canonical,
                locale, requested_by, form_id, return_url, expire_time)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10,
                now() + make_interval(secs => $11::bigint))
            RETURNING create_time, expire_time
        ), token AS (
            INSERT INTO tokens (token_hash, organization_id, invitation_id, expire_time)
            SELECT $12, $1, $2, expire_time FROM invitation
        ), account AS (
            UPDATE accounts SET last_invitation_id = $2
            WHERE organization_id = $1 AND account_id = $3
        )
        SELECT create_time, expire_time FROM invitation",
        organization_id,
        new.invitation_id,
        new.account_id,
        new.kind.as_str(),
        new.recipient,
        new.recipient_canonical,
        new.locale,
        new.requested_by,
        new.form_id,
        new.return_url,
        new.lifetime_seconds,
        new.token_hash,
    )
    .fetch_one(connection)
    .await
}

/// How an invitation ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The client took the account over.
    Accepted,
    /// Withdrawn by staff, or by a change of the email.
    Revoked,
    /// A newer one took its place.
    Superseded,
}

impl End {
    fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "ACCEPTED",
            Self::Revoked => "REVOKED",
            Self::Superseded => "SUPERSEDED",
        }
    }
}

/// An invitation that has ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// The invitation.
    pub invitation_id: Uuid,
    /// Number of its latest email.
    pub send_count: i32,
    /// When it ended.
    pub end_time: OffsetDateTime,
}

/// Ends the invitation of an account that has not ended yet, with its tokens; `None` if there is none. One
/// that has expired by now stays expired, and so does its link.
///
/// # Errors
/// If the database fails.
pub async fn end(
    connection: &mut PgConnection,
    organization_id: Uuid,
    account_id: Uuid,
    end: End,
) -> Result<Option<Ended>, sqlx::Error> {
    sqlx::query_as!(
        Ended,
        r#"WITH invitation AS (
            UPDATE invitations SET
                end_state = CASE WHEN $3 <> 'ACCEPTED' AND expire_time <= clock.now THEN 'EXPIRED'
                    ELSE $3 END,
                end_time = least(expire_time, clock.now)
            FROM (SELECT clock_timestamp() AS now) AS clock
            WHERE organization_id = $1 AND account_id = $2 AND end_state IS NULL
            RETURNING invitation_id, send_count, end_state, end_time
        ), token AS (
            UPDATE tokens SET
                revoked_time = CASE WHEN end_state = 'REVOKED' THEN end_time END,
                superseded_time = CASE WHEN end_state = 'SUPERSEDED' THEN end_time END
            FROM invitation
            WHERE tokens.organization_id = $1 AND tokens.invitation_id = invitation.invitation_id
                AND used_time IS NULL AND revoked_time IS NULL AND superseded_time IS NULL
        )
        SELECT invitation_id, send_count, end_time AS "end_time!" FROM invitation"#,
        organization_id,
        account_id,
        end.as_str(),
    )
    .fetch_optional(connection)
    .await
}
