//! Persons: the humans behind accounts, platform-wide, and their credentials.

use sqlx::PgConnection;
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
        "SELECT person_id, password_hash FROM persons JOIN credentials USING (person_id)
        WHERE email = $1",
        canonical_email,
    )
    .fetch_optional(connection)
    .await
}

/// Creates the Person who proved `canonical_email`, with a password; `None` if there is one already. Needs
/// the platform's scope.
///
/// # Errors
/// If the database fails.
pub async fn create(
    connection: &mut PgConnection,
    person_id: Uuid,
    canonical_email: &str,
    password_hash: &str,
) -> Result<Option<Uuid>, sqlx::Error> {
    let created = sqlx::query_scalar!(
        "INSERT INTO persons (person_id, email) VALUES ($1, $2)
        ON CONFLICT (email) DO NOTHING RETURNING person_id",
        person_id,
        canonical_email,
    )
    .fetch_optional(&mut *connection)
    .await?;
    if created.is_some() {
        sqlx::query!(
            "INSERT INTO credentials (person_id, password_hash) VALUES ($1, $2)",
            person_id,
            password_hash,
        )
        .execute(connection)
        .await?;
    }
    Ok(created)
}
