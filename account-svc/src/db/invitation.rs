//! Invitations.

mod deliveries;
mod end;

use sqlx::PgConnection;
use time::OffsetDateTime;
use usher_runtime::{hidden_debug, page::Rows};
use uuid::Uuid;

pub use self::{
    deliveries::{DeliveryReport, Recorded, give_up, record_deliveries},
    end::{End, Ended, end},
};
use super::MAX_SCANNED;
use crate::domain::{
    email::Email,
    state::{InvitationKind, InvitationState},
    token::TokenHash,
};

/// An invitation as it is read.
#[derive(Clone)]
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
    /// Where the link returns to; empty means the portal's start page.
    pub return_url: String,
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

hidden_debug!(Invitation { invitation_id, state }, NewInvitation<'_> { invitation_id });

/// Reads whole invitations; `$tail` follows the table.
macro_rules! select_invitations {
    ($tail:literal, $($argument:expr),* $(,)?) => {
        sqlx::query_as!(
            Invitation,
            r#"SELECT i.invitation_id, i.organization_id, i.account_id,
                i.kind AS "kind: InvitationKind", invitation_state(i) AS "state!: InvitationState", i.recipient, i.send_count, i.requested_by, i.form_id,
                i.return_url, i.throttled_until, i.failure_reason, i.create_time, i.sent_time, i.expire_time,
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
pub struct NewInvitation<'a> {
    /// Identity.
    pub invitation_id: Uuid,
    /// The account.
    pub account_id: Uuid,
    /// What it asks.
    pub kind: InvitationKind,
    /// Where the email goes.
    pub recipient: &'a Email,
    /// Language of the email.
    pub locale: &'a str,
    /// Who asks for it.
    pub requested_by: String,
    /// Form sent with it; empty means none.
    pub form_id: String,
    /// Where the link returns to; empty means the portal's start page.
    pub return_url: String,
    /// How long it can be used.
    pub lifetime_seconds: i64,
    /// SHA-256 of its token.
    pub token_hash: TokenHash,
}

impl NewInvitation<'_> {
    /// The invitation once it is created. Its state is the one that the SQL function `invitation_state` gives it, derived
    /// here again, so that it need not be read back.
    #[must_use]
    pub fn into_invitation(self, organization_id: Uuid, times: Times) -> Invitation {
        Invitation {
            invitation_id: self.invitation_id,
            organization_id,
            account_id: self.account_id,
            kind: self.kind,
            state: InvitationState::Queued,
            recipient: self.recipient.address().to_owned(),
            send_count: 1,
            requested_by: self.requested_by,
            form_id: self.form_id,
            return_url: self.return_url,
            throttled_until: None,
            failure_reason: String::new(),
            create_time: times.create_time,
            sent_time: None,
            expire_time: times.expire_time,
            end_time: None,
        }
    }
}

/// Times of a new invitation.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// When it was created.
    pub create_time: OffsetDateTime,
    /// When its link stops working.
    pub expire_time: OffsetDateTime,
}

/// Creates an invitation with its token and makes it the newest of its account, which must be locked or new. It
/// lives at least as long as those that are open.
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
        "WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS now), invitation AS (
            INSERT INTO invitations (
                organization_id, invitation_id, account_id, kind, recipient, recipient_canonical,
                locale, requested_by, form_id, return_url, create_time, expire_time)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, (SELECT now FROM clock),
                greatest((SELECT now FROM clock) + make_interval(secs => $11::bigint),
                    (SELECT max(expire_time) FROM invitations
                    WHERE organization_id = $1 AND account_id = $3 AND end_state IS NULL)))
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
        new.recipient.address(),
        new.recipient.canonical(),
        new.locale,
        new.requested_by,
        new.form_id,
        new.return_url,
        new.lifetime_seconds,
        &new.token_hash.0[..],
    )
    .fetch_one(connection)
    .await
}

/// Changes what is added to an invitation whose account is locked.
///
/// # Errors
/// If the database fails.
pub async fn set_options(
    connection: &mut PgConnection,
    organization_id: Uuid,
    invitation_id: Uuid,
    form_id: &str,
    return_url: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE invitations SET form_id = $3, return_url = $4
        WHERE organization_id = $1 AND invitation_id = $2",
        organization_id,
        invitation_id,
        form_id,
        return_url,
    )
    .execute(connection)
    .await?;
    Ok(())
}
