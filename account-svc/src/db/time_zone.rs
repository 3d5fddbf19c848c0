//! Names of time zones, as the database knows them.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use sqlx::PgConnection;

/// Names of the IANA time zone database. Clones are the same set.
///
/// PostgreSQL reads all files of that database to list its names, which takes about 0.1 s: a name that it has is looked
/// up once. What else can stand after `AT TIME ZONE` (abbreviations, other capitals, rules as of POSIX) is not a name.
#[derive(Debug, Clone, Default)]
pub struct TimeZones {
    known: Arc<Mutex<HashSet<String>>>,
}

impl TimeZones {
    /// Whether there is a time zone of this name.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn contain(
        &self,
        connection: &mut PgConnection,
        time_zone: &str,
    ) -> Result<bool, sqlx::Error> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known().contains(time_zone) {
            return Ok(true);
        }
        let is_known = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM pg_timezone_names WHERE name = $1) AS "known!""#,
            time_zone
        )
        .fetch_one(connection)
        .await?;
        if is_known {
            known().insert(time_zone.to_owned());
        }
        Ok(is_known)
    }
}
