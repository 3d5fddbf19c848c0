//! The audit log: who did what. Append-only, without personal data.
//!
//! Both services have the same table `audit_events`, which a [`Change`](crate::change::Change) writes. The
//! functions work on a connection inside the caller's transaction.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use uuid::Uuid;

/// Most characters of one particular. The longest is the list of 40 duplicates that were ignored.
const MAX_DETAIL: usize = 2_000;

/// An entry to be added. No values of a profile, no token and no password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// What was done, for example `account.closed`.
    pub action: &'static str,
    /// What it was done to; `None` for what concerns the organization.
    pub resource_id: Option<Uuid>,
    /// Particulars, each up to 2,000 characters.
    details: BTreeMap<&'static str, String>,
}

impl AuditEntry {
    /// An entry about a resource of the organization.
    #[must_use]
    pub fn of_resource(action: impl Into<&'static str>, resource_id: Uuid) -> Self {
        Self {
            action: action.into(),
            resource_id: Some(resource_id),
            details: BTreeMap::new(),
        }
    }

    /// An entry about the organization itself.
    #[must_use]
    pub fn of_organization(action: impl Into<&'static str>) -> Self {
        Self {
            action: action.into(),
            resource_id: None,
            details: BTreeMap::new(),
        }
    }

    /// Adds a particular, unless it is empty. What is longer than 2,000 characters is cut.
    #[must_use]
    pub fn detail(mut self, name: &'static str, value: impl Into<String>) -> Self {
        let mut value: String = value.into();
        if let Some((end, _)) = value.char_indices().nth(MAX_DETAIL) {
            value.truncate(end);
        }
        if !value.is_empty() {
            self.details.insert(name, value);
        }
        self
    }
}

/// Entries as the columns of `audit_events`, to be added in one statement.
#[derive(Default)]
pub(crate) struct Columns {
    pub ids: Vec<Uuid>,
    pub resource_ids: Vec<Option<Uuid>>,
    pub actions: Vec<&'static str>,
    pub details: Vec<serde_json::Value>,
}

impl Columns {
    pub fn of(entries: &[AuditEntry]) -> Self {
        let mut columns = Self::default();
        for entry in entries {
            columns.ids.push(Uuid::now_v7());
            columns.resource_ids.push(entry.resource_id);
            columns.actions.push(entry.action);
            columns.details.push(serde_json::json!(entry.details));
        }
        columns
    }
}

/// Deletes up to `limit` entries that are older than ten years, which is all that the database lets go;
/// answers how many there were.
///
/// # Errors
/// If the database fails.
pub async fn purge(connection: &mut PgConnection, limit: i64) -> Result<u64, sqlx::Error> {
    let result = sqlx::query!(
        "DELETE FROM audit_events WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM audit_events
            WHERE occur_time < now() - interval '10 years' ORDER BY occur_time LIMIT $1))",
        limit,
    )
    .execute(connection)
    .await?;
    Ok(result.rows_affected())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_particular_is_cut_to_what_the_contract_says() {
        let entry = |length| {
            AuditEntry::of_organization("organization.updated").detail("reason", "é".repeat(length))
        };
        assert_eq!(entry(2_001), entry(2_000));
        assert_ne!(entry(2_000), entry(1_999));
    }
}
