//! Persons: the humans behind accounts, platform-wide.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// Whether a Person anywhere on the platform has proved this email. The one thing about Persons that any
/// organization may ask.
///
/// # Errors
/// If the database fails.
pub async fn exists(
    connection: &mut PgConnection,
    canonical_email: &str,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT email_is_on_platform($1) AS "exists!""#,
        canonical_email
    )
    .fetch_one(connection)
    .await
}

/// What a login is checked against.
#[derive(Debug)]
pub struct Credentials {
    /// The Person.
    pub person_id: Uuid,
    /// Argon2id in PHC format.
    pub password_hash: String,
    /// The last login.
    pub last_login_time: Option<OffsetDateTime>,
}

/// Reads what a login is checked against. Needs the platform's scope.
///
/// # Errors
/// If the database fails.
pub async fn get_credentials(
    connection: &mut PgConnection,
    canonical_email: &str,
) -> Result<Option<Credentials>, sqlx::Error> {
    sqlx::query_as!(
        Credentials,
        "SELECT person_id, password_hash, last_login_time FROM persons WHERE email = $1",
        canonical_email,
    )
    .fetch_optional(connection)
    .await
}

/// Creates the Person who proved `canonical_email`; `None` if there is one already. Needs the platform's
/// scope.
///
/// # Errors
/// If the database fails.
pub async fn create(
    connection: &mut PgConnection,
    person_id: Uuid,
    canonical_email: &str,
    password_hash: &str,
) -> Result<Option<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "INSERT INTO persons (person_id, email, password_hash) VALUES ($1, $2, $3)
        ON CONFLICT (email) DO NOTHING RETURNING person_id",
        person_id,
        canonical_email,
        password_hash,
    )
    .fetch_optional(connection)
    .await
}

/// Records a login. Needs the platform's scope.
///
/// # Errors
/// If the database fails.
pub async fn record_login(
    connection: &mut PgConnection,
    person_id: Uuid,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE persons SET last_login_time = now() WHERE person_id = $1",
        person_id
    )
    .execute(connection)
    .await?;
    Ok(())
}
