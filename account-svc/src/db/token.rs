//! Tokens in links, by their hash. Needs the platform's scope: the organization is not known yet.

use sqlx::PgConnection;
use time::OffsetDateTime;
use usher_runtime::hidden_debug;
use uuid::Uuid;

use crate::domain::{
    state::{InvitationKind, TokenStatus},
    token::TokenHash,
};

/// A token with all that its page shows.
pub struct Token {
    /// The organization that invites.
    pub organization_id: Uuid,
    /// Its name.
    pub organization_name: String,
    /// Its logo; empty means none.
    pub logo_url: String,
    /// Its colour; empty means the default.
    pub color: String,
    /// The invitation.
    pub invitation_id: Uuid,
    /// What it asks.
    pub kind: InvitationKind,
    /// The account.
    pub account_id: Uuid,
    /// Given name of the client.
    pub given_name: String,
    /// Family name of the client.
    pub family_name: String,
    /// Address of the recipient.
    pub recipient: String,
    /// The same in canonical form.
    pub recipient_canonical: String,
    /// Language of the invitation.
    pub locale: String,
    /// Form sent with it; empty means none.
    pub form_id: String,
    /// Where to send the client afterwards; empty means the portal's start page.
    pub return_url: String,
    /// When it stops working.
    pub expire_time: OffsetDateTime,
    /// Base of the organization's links, for judging `return_url`.
    pub portal_url: String,
    /// Origins besides the portal's that links may return to.
    pub allowed_return_origins: Vec<String>,
    /// Whether it can be used.
    pub status: TokenStatus,
}

hidden_debug!(Token {
    invitation_id,
    status
});

/// Reads a token and consumes nothing.
///
/// # Errors
/// If the database fails.
pub async fn get(
    connection: &mut PgConnection,
    hash: TokenHash,
) -> Result<Option<Token>, sqlx::Error> {
    sqlx::query_as!(
        Token,
        r#"SELECT t.organization_id, o.display_name AS organization_name, o.logo_url, o.color,
            o.portal_url, o.allowed_return_origins, i.invitation_id, i.kind AS "kind: InvitationKind", i.account_id, a.given_name, a.family_name, i.recipient,
            i.recipient_canonical, i.locale, i.form_id, i.return_url, t.expire_time,
            CASE
                WHEN t.used_time IS NOT NULL THEN 'USED'
                WHEN t.revoked_time IS NOT NULL THEN 'REVOKED'
                -- No newer email helps whoever used another link.
                WHEN t.superseded_time IS NOT NULL AND a.person_id IS NOT NULL THEN 'USED'
                WHEN t.superseded_time IS NOT NULL THEN 'SUPERSEDED'
                WHEN t.expire_time <= statement_timestamp() THEN 'EXPIRED'
                ELSE 'VALID'
            END AS "status!: TokenStatus"
        FROM tokens t
        JOIN organizations o ON o.organization_id = t.organization_id
        JOIN invitations i
            ON i.organization_id = t.organization_id AND i.invitation_id = t.invitation_id
        JOIN accounts a ON a.organization_id = i.organization_id AND a.account_id = i.account_id
        WHERE t.token_hash = $1"#,
        hash.0.as_slice(),
    )
    .fetch_optional(connection)
    .await
}

/// A token that was consumed.
#[derive(Debug, Clone, Copy)]
pub struct Consumed {
    /// When.
    pub used_time: OffsetDateTime,
}

/// Consumes a token: of any number of callers with the same one, one gets `Some`. By the clock of this moment:
/// the transaction may have waited for a lock since it began.
///
/// # Errors
/// If the database fails.
pub async fn consume(
    connection: &mut PgConnection,
    hash: TokenHash,
) -> Result<Option<Consumed>, sqlx::Error> {
    sqlx::query_as!(
        Consumed,
        r#"UPDATE tokens SET used_time = clock_timestamp()
        WHERE token_hash = $1 AND used_time IS NULL AND revoked_time IS NULL
            AND superseded_time IS NULL AND expire_time > clock_timestamp()
        RETURNING used_time AS "used_time!""#,
        hash.0.as_slice(),
    )
    .fetch_optional(connection)
    .await
}

/// Deletes up to `limit` tokens that expired 400 days ago: until then its link says that it expired. Answers how
/// many there were.
///
/// # Errors
/// If the database fails.
pub async fn purge(connection: &mut PgConnection, limit: i64) -> Result<u64, sqlx::Error> {
    let result = sqlx::query!(
        "DELETE FROM tokens WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM tokens
            WHERE expire_time < now() - interval '400 days' ORDER BY expire_time LIMIT $1))",
        limit,
    )
    .execute(connection)
    .await?;
    Ok(result.rows_affected())
}
