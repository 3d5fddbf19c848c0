//! The audit log, as it is read. [`Change`](usher_runtime::change::Change) writes it.

use sqlx::PgConnection;
use usher_runtime::page::{Page, Rows};
use uuid::Uuid;

use super::organizations;
use crate::{
    db::{self, audit::AuditFilter},
    domain::audit::AuditEvent,
    error::Error,
};

/// Lists entries, newest first.
///
/// # Errors
/// If there is no such organization.
pub async fn list(
    connection: &mut PgConnection,
    organization_id: Uuid,
    filter: &AuditFilter,
    page: &Page,
) -> Result<Rows<AuditEvent>, Error> {
    organizations::read(connection, organization_id).await?;
    Ok(db::audit::list(
        connection,
        organization_id,
        filter,
        page.after,
        page.limit(),
    )
    .await?)
}
