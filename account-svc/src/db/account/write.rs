//! Changes of accounts.

use sqlx::{PgConnection, types::Json};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    db::invitation::NewInvitation,
    domain::{
        duplicate::{Fingerprint, KEYS_VERSION},
        email::Email,
        profile::Profile,
    },
};

/// An account to be created.
#[derive(Debug)]
pub struct NewAccount<'a> {
    /// The organization.
    pub organization_id: Uuid,
    /// Identity.
    pub account_id: Uuid,
    /// What staff entered.
    pub profile: &'a Profile,
    /// That of the profile.
    pub fingerprint: &'a Fingerprint,
    /// Its first invitation.
    pub invitation: Option<&'a NewInvitation<'a>>,
}

/// Creates an account with the keys that it is found by and its first invitation, in one statement; `None` if its
/// email is taken in the organization. Answers when it was created, and when the invitation expires.
///
/// # Errors
/// If the database fails.
pub async fn create(
    connection: &mut PgConnection,
    new: &NewAccount<'_>,
) -> Result<Option<(OffsetDateTime, Option<OffsetDateTime>)>, sqlx::Error> {
    let (profile, invitation) = (new.profile, new.invitation);
    let Fingerprint {
        blocking_keys,
        name_hashes: names,
        ..
    } = new.fingerprint;
    let created = sqlx::query!(
        r#"WITH account AS (
            INSERT INTO accounts (
                organization_id, account_id, given_name, family_name, email, email_canonical, birth_date,
                phone, members, addresses, contacts, plan, assigned_staff, attributes, locale,
                given_name_hash, family_name_hash, last_invitation_id, duplicate_keys, keys_version)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $27)
            ON CONFLICT (organization_id, email_canonical) WHERE close_time IS NULL DO NOTHING
            RETURNING account_id, create_time
        ), keys AS (
            INSERT INTO duplicate_keys (organization_id, key, account_id)
            SELECT $1, key, account_id FROM account, unnest($19::bigint[]) AS key
        ), invitation AS (
            INSERT INTO invitations (
                organization_id, invitation_id, account_id, kind, recipient, recipient_canonical, locale,
                requested_by, form_id, return_url, create_time, expire_time)
            SELECT $1, $18, account_id, $20, $5, $6, $21, $22, $23, $24, create_time,
                create_time + make_interval(secs => $25::bigint)
            FROM account WHERE $18::uuid IS NOT NULL
            RETURNING expire_time
        ), token AS (
            INSERT INTO tokens (token_hash, organization_id, invitation_id, expire_time)
            SELECT $26, $1, $18, expire_time FROM invitation
        )
        SELECT create_time AS "create_time!", (SELECT expire_time FROM invitation) AS expire_time FROM account"#,
        new.organization_id,
        new.account_id,
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
        names.given,
        names.family,
        invitation.map(|invitation| invitation.invitation_id),
        blocking_keys,
        invitation.map(|invitation| invitation.kind.as_str()),
        invitation.map(|invitation| invitation.locale),
        invitation.map(|invitation| invitation.requested_by.as_str()),
        invitation.map(|invitation| invitation.form_id.as_str()),
        invitation.map(|invitation| invitation.return_url.as_str()),
        invitation.map(|invitation| invitation.lifetime_seconds),
        invitation.map(|invitation| &invitation.token_hash.0[..]),
        KEYS_VERSION,
    )
    .fetch_optional(connection)
    .await?;
    Ok(created.map(|created| (created.create_time, created.expire_time)))
}

/// Changes the profile of an account that is locked, with the keys that it is found by while it is open. A concurrent
/// account of the same email makes it fail with the unique violation of `accounts_email_key`.
///
/// # Errors
/// If the database fails or the email is taken.
pub async fn update(
    connection: &mut PgConnection,
    organization_id: Uuid,
    account_id: Uuid,
    profile: &Profile,
    fingerprint: &Fingerprint,
    is_open: bool,
) -> Result<(), sqlx::Error> {
    let names = fingerprint.name_hashes;
    let keys = if is_open {
        &fingerprint.blocking_keys[..]
    } else {
        &[]
    };
    sqlx::query!(
        "WITH stored AS MATERIALIZED (
            SELECT unnest(duplicate_keys) AS key FROM accounts WHERE organization_id = $1 AND account_id = $2
        ),
        removed AS (
            DELETE FROM duplicate_keys WHERE organization_id = $1 AND account_id = $2
                AND key = ANY (ARRAY(SELECT key FROM stored EXCEPT SELECT unnest($18::bigint[])))
        ),
        added AS (
            INSERT INTO duplicate_keys (organization_id, key, account_id)
            SELECT $1, key, $2 FROM (SELECT unnest($18::bigint[]) EXCEPT SELECT key FROM stored) AS new (key)
            ON CONFLICT DO NOTHING
        )
        UPDATE accounts SET
            given_name = $3, family_name = $4, email = $5, email_canonical = $6, birth_date = $7,
            phone = $8, members = $9, addresses = $10, contacts = $11, plan = $12,
            assigned_staff = $13, attributes = $14, locale = $15, given_name_hash = $16,
            family_name_hash = $17, duplicate_keys = $18, keys_version = $19,
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
        names.given,
        names.family,
        keys,
        KEYS_VERSION,
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

/// Closes an account that is locked and open. It is not found as a duplicate any more.
///
/// # Errors
/// If the database fails.
pub async fn close(
    connection: &mut PgConnection,
    organization_id: Uuid,
    account_id: Uuid,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "WITH removed AS (
            DELETE FROM duplicate_keys WHERE organization_id = $1 AND account_id = $2 AND key = ANY (ARRAY(
                SELECT unnest(duplicate_keys) FROM accounts WHERE organization_id = $1 AND account_id = $2))
        )
        UPDATE accounts SET close_time = now(), duplicate_keys = '{}', version = version + 1, update_time = now()
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
    fingerprint: &Fingerprint,
) -> Result<(), sqlx::Error> {
    let names = fingerprint.name_hashes;
    sqlx::query!(
        "WITH added AS (
            INSERT INTO duplicate_keys (organization_id, key, account_id)
            SELECT $1, key, $2 FROM unnest($3::bigint[]) AS key
            ON CONFLICT DO NOTHING
        )
        UPDATE accounts SET close_time = NULL, duplicate_keys = $3, given_name_hash = $4, family_name_hash = $5,
            keys_version = $6, version = version + 1, update_time = now()
        WHERE organization_id = $1 AND account_id = $2",
        organization_id,
        account_id,
        &fingerprint.blocking_keys,
        names.given,
        names.family,
        KEYS_VERSION,
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
