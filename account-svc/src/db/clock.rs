//! The database's clock: the only one that rules follow.

use sqlx::PgConnection;
use time::Date;

/// Today in UTC.
///
/// # Errors
/// If the database fails.
pub async fn today(connection: &mut PgConnection) -> Result<Date, sqlx::Error> {
    sqlx::query_scalar!(r#"SELECT (now() AT TIME ZONE 'UTC')::date AS "today!""#)
        .fetch_one(connection)
        .await
}
