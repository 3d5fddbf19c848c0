//! The audit log: who did what to which account. Append-only, without personal data.

use sqlx::PgConnection;
use uuid::Uuid;

/// Adds an entry. `action` names an RPC or a rule, for example `account.create`.
///
/// # Errors
/// If the database fails.
pub async fn add(
    connection: &mut PgConnection,
    organization_id: Uuid,
    account_id: Option<Uuid>,
    actor: &str,
    action: &str,
    detail: serde_json::Value,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO audit_events (organization_id, audit_event_id, account_id, actor, action, detail)
        VALUES ($1, $2, $3, $4, $5, $6)",
        organization_id,
        Uuid::now_v7(),
        account_id,
        actor,
        action,
        detail,
    )
    .execute(connection)
    .await?;
    Ok(())
}
