//! Persons: the humans behind accounts, platform-wide, and their credentials.

use aws_lc_rs::digest;
use sqlx::PgConnection;
use usher_runtime::hidden_debug;
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
        r#"SELECT EXISTS (SELECT FROM proven_emails WHERE email_hash = $1) AS "exists!""#,
        email_hash(canonical_email),
    )
    .fetch_one(connection)
    .await
}

/// What `proven_emails` knows an email by.
#[must_use]
pub fn email_hash(canonical_email: &str) -> Vec<u8> {
    digest::digest(&digest::SHA256, canonical_email.as_bytes())
        .as_ref()
        .to_vec()
}

/// What a login is checked against.
pub struct Credentials {
    /// The Person.
    pub person_id: Uuid,
    /// Argon2id in PHC format.
    pub password_hash: String,
}

hidden_debug!(Credentials { person_id });

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
    sqlx::query_scalar!(
        "WITH person AS (
            INSERT INTO persons (person_id, email) VALUES ($1, $2)
            ON CONFLICT (email) DO NOTHING RETURNING person_id
        ), credential AS (
            INSERT INTO credentials (person_id, password_hash) SELECT person_id, $3 FROM person
        ), proven_email AS (
            INSERT INTO proven_emails (email_hash) SELECT $4 FROM person
        )
        SELECT person_id FROM person",
        person_id,
        canonical_email,
        password_hash,
        email_hash(canonical_email),
    )
    .fetch_optional(connection)
    .await
}
