//! Changes of accounts.

use sqlx::{PgConnection, types::Json};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::{email::Email, profile::Profile};

/// Creates an account; `false` if its email is taken in the organization.
///
/// # Errors
/// If the database fails.
pub async fn create(
    connection: &mut PgConnection,
    organization_id: Uuid,
    account_id: Uuid,
    profile: &Profile,
) -> Result<bool, sqlx::Error> {
    let result = sqlx::query!(
        "INSERT INTO accounts (
            organization_id, account_id, given_name, family_name, email, email_canonical, birth_date,
            phone, members, addresses, contacts, plan, assigned_staff, attributes, locale, name_key,
            name_sound)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
        ON CONFLICT (organization_id, email_canonical) WHERE close_time IS NULL DO NOTHING",
        organization_id,
        account_id,
        profile.name.given,
        profile.name.family,
        profile.email.as_ref().map(Email::address),
        profile.email.as_ref().map(Email::canonical),
        profile.birth_date,
        profile.phone,
        Json(&profile.members) as _,
        Json(&profile.addresses) as _,
        Json(&profile.contacts) as _,
        profile.plan,
        profile.assigned_staff,
        Json(&profile.attributes) as _,
        profile.locale,
        profile.name.key(),
        profile.name.sound(),
    )
    .execute(connection)
    .await?;
    Ok(result.rows_affected() == 1)
}

/// Changes the profile of an account that is locked. A concurrent account of the same email makes it fail
/// with the unique violation of `accounts_email_key`.
///
/// # Errors
/// If the database fails or the email is taken.
pub async fn update(
    connection: &mut PgConnection,
    organization_id: Uuid,
    account_id: Uuid,
    profile: &Profile,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE accounts SET
            given_name = $3, family_name = $4, email = $5, email_canonical = $6, birth_date = $7,
            phone = $8, members = $9, addresses = $10, contacts = $11, plan = $12,
            assigned_staff = $13, attributes = $14, locale = $15, name_key = $16, name_sound = $17,
            version = version + 1, update_time = now()
        WHERE organization_id = $1 AND account_id = $2",
        organization_id,
        account_id,
        profile.name.given,
        profile.name.family,
        profile.email.as_ref().map(Email::address),
        profile.email.as_ref().map(Email::canonical),
        profile.birth_date,
        profile.phone,
        Json(&profile.members) as _,
        Json(&profile.addresses) as _,
        Json(&profile.contacts) as _,
        profile.plan,
        profile.assigned_staff,
        Json(&profile.attributes) as _,
        profile.locale,
        profile.name.key(),
        profile.name.sound(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Links an account to the Person who took it over; `false` if somebody did before, or it is closed.
///
/// # Errors
/// If the database fails.
pub async fn activate(
    connection: &mut PgConnection,
    organization_id: Uuid,
    account_id: Uuid,
    person_id: Uuid,
) -> Result<bool, sqlx::Error> {
    let result = sqlx::query!(
        "UPDATE accounts SET person_id = $3, activate_time = now()
        WHERE organization_id = $1 AND account_id = $2 AND person_id IS NULL AND close_time IS NULL",
        organization_id,
        account_id,
        person_id,
    )
    .execute(connection)
    .await?;
    Ok(result.rows_affected() == 1)
}

/// Closes an account that is locked and open.
///
/// # Errors
/// If the database fails.
pub async fn close(
    connection: &mut PgConnection,
    organization_id: Uuid,
    account_id: Uuid,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE accounts SET close_time = now(), version = version + 1, update_time = now()
        WHERE organization_id = $1 AND account_id = $2",
        organization_id,
        account_id,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Opens a closed account that is locked. An open account of the same email makes it fail with the unique
/// violation of `accounts_email_key`.
///
/// # Errors
/// If the database fails or the email is taken.
pub async fn reopen(
    connection: &mut PgConnection,
    organization_id: Uuid,
    account_id: Uuid,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE accounts SET close_time = NULL, version = version + 1, update_time = now()
        WHERE organization_id = $1 AND account_id = $2",
        organization_id,
        account_id,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// A login of a client through an organization.
#[derive(Debug)]
pub struct Login {
    /// The Person's account there.
    pub account_id: Uuid,
    /// The login before this one.
    pub previous_login_time: Option<OffsetDateTime>,
}

/// Records a login in the Person's account in an organization; `None` if they have none there.
///
/// # Errors
/// If the database fails.
pub async fn record_login(
    connection: &mut PgConnection,
    organization_id: Uuid,
    person_id: Uuid,
) -> Result<Option<Login>, sqlx::Error> {
    sqlx::query_as!(
        Login,
        "UPDATE accounts SET last_login_time = now()
        FROM (
            SELECT account_id, last_login_time AS previous_login_time FROM accounts
            WHERE organization_id = $1 AND person_id = $2 AND close_time IS NULL
            FOR NO KEY UPDATE
        ) AS before
        WHERE organization_id = $1 AND accounts.account_id = before.account_id
        RETURNING accounts.account_id, previous_login_time",
        organization_id,
        person_id,
    )
    .fetch_optional(connection)
    .await
}
