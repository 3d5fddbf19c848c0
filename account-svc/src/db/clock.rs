//! The database's clock: the only one that rules follow.

use sqlx::PgConnection;
use time::Date;

/// Today, where the organization is. `time_zone` is a name that [`knows_time_zone`].
///
/// # Errors
/// If the database fails.
pub async fn today(connection: &mut PgConnection, time_zone: &str) -> Result<Date, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT (statement_timestamp() AT TIME ZONE $1)::date AS "today!""#,
        time_zone
    )
    .fetch_one(connection)
    .await
}

/// Whether the database knows a time zone by this name of the IANA database.
///
/// # Errors
/// If the database fails.
pub async fn knows_time_zone(
    connection: &mut PgConnection,
    time_zone: &str,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM pg_timezone_names WHERE name = $1) AS "known!""#,
        time_zone
    )
    .fetch_one(connection)
    .await
}
