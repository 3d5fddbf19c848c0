//! Tokens in links, by their hash. Needs the platform's scope: the organization is not known yet.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::token::TokenHash;

/// A token with all that its page shows.
#[derive(Debug)]
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
    /// A name of `InvitationKind` without its prefix.
    pub kind: String,
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
    /// A name of `TokenStatus` without its prefix.
    pub status: String,
}

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
            i.invitation_id, i.kind, i.account_id, a.given_name, a.family_name, i.recipient,
            i.recipient_canonical, i.locale, i.form_id, i.return_url, t.expire_time,
            CASE
                WHEN t.used_time IS NOT NULL THEN 'USED'
                WHEN t.revoked_time IS NOT NULL THEN 'REVOKED'
                WHEN t.superseded_time IS NOT NULL THEN 'SUPERSEDED'
                WHEN t.expire_time <= now() THEN 'EXPIRED'
                ELSE 'VALID'
            END AS "status!"
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

/// Consumes a token: of any number of callers with the same one, one gets `Some`.
///
/// # Errors
/// If the database fails.
pub async fn consume(
    connection: &mut PgConnection,
    hash: TokenHash,
) -> Result<Option<Consumed>, sqlx::Error> {
    sqlx::query_as!(
        Consumed,
        r#"UPDATE tokens SET used_time = now()
        WHERE token_hash = $1 AND used_time IS NULL AND revoked_time IS NULL
            AND superseded_time IS NULL AND expire_time > now()
        RETURNING used_time AS "used_time!""#,
        hash.0.as_slice(),
    )
    .fetch_optional(connection)
    .await
}
