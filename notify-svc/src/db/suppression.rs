//! Mailboxes that an organization does not write to any more.

use sqlx::PgConnection;
use uuid::Uuid;

use super::delivery::{Claim, Outcome};

/// Puts the recipients of dead mailboxes on their organizations' suppression lists.
///
/// # Errors
/// If the database fails.
pub async fn insert(
    connection: &mut PgConnection,
    outcomes: &[(Claim, Outcome)],
) -> Result<(), sqlx::Error> {
    let mut dead: Vec<(Uuid, String, Uuid)> = outcomes
        .iter()
        .filter(|(_, outcome)| outcome.suppress)
        .filter_map(|(claim, _)| {
            let mail = claim.mail.as_ref().ok()?;
            Some((
                claim.organization_id,
                mail.recipient.canonical(),
                claim.delivery_id,
            ))
        })
        .collect();
    if dead.is_empty() {
        return Ok(());
    }
    dead.sort_unstable();
    let organization_ids: Vec<_> = dead.iter().map(|row| row.0).collect();
    let recipients: Vec<_> = dead.iter().map(|row| row.1.clone()).collect();
    let delivery_ids: Vec<_> = dead.iter().map(|row| row.2).collect();
    sqlx::query!(
        "INSERT INTO suppressions (organization_id, recipient, reason, delivery_id)
         SELECT organization_id, recipient, 'BOUNCE', delivery_id
         FROM unnest($1::uuid[], $2::text[], $3::uuid[])
            AS dead (organization_id, recipient, delivery_id)
         ON CONFLICT (organization_id, recipient, reason) DO NOTHING",
        &organization_ids,
        &recipients,
        &delivery_ids
    )
    .execute(connection)
    .await?;
    Ok(())
}
