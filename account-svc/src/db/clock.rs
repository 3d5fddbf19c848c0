//! The database's clock: the only one that rules follow.

use sqlx::PgConnection;

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
