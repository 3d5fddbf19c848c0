//! Invitations that are void.

use sqlx::PgConnection;

use crate::domain::Revocation;

/// Remembers revocations: the request that one of them revokes may still be under way.
///
/// # Errors
/// If the database fails.
pub async fn insert(
    connection: &mut PgConnection,
    revocations: &[Revocation],
) -> Result<(), sqlx::Error> {
    let mut sorted = revocations.to_vec();
    sorted
        .sort_unstable_by_key(|revocation| (revocation.organization_id, revocation.invitation_id));
    let organization_ids: Vec<_> = sorted.iter().map(|row| row.organization_id).collect();
    let invitation_ids: Vec<_> = sorted.iter().map(|row| row.invitation_id).collect();
    let send_numbers: Vec<_> = sorted.iter().map(|row| row.send_number).collect();
    sqlx::query!(
        "INSERT INTO revocations (organization_id, invitation_id, send_number)
         SELECT organization_id, invitation_id, max(send_number)
         FROM unnest($1::uuid[], $2::uuid[], $3::integer[])
            AS revoked (organization_id, invitation_id, send_number)
         GROUP BY organization_id, invitation_id
         ORDER BY organization_id, invitation_id
         ON CONFLICT (organization_id, invitation_id) DO UPDATE
            SET send_number = greatest(revocations.send_number, excluded.send_number)",
        &organization_ids,
        &invitation_ids,
        &send_numbers
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes at most `limit` revocations that are older than any link: their requests cannot be sent any more.
///
/// # Errors
/// If the database fails.
pub async fn purge(connection: &mut PgConnection, limit: i64) -> Result<u64, sqlx::Error> {
    let deleted = sqlx::query!(
        "DELETE FROM revocations WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM revocations
            WHERE receive_time < now() - interval '400 days'
            ORDER BY receive_time LIMIT $1
            FOR UPDATE SKIP LOCKED))",
        limit
    )
    .execute(connection)
    .await?;
    Ok(deleted.rows_affected())
}
