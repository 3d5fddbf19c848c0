//! Organizations.

use sqlx::{PgConnection, types::Json};
use time::{Date, OffsetDateTime};
use uuid::Uuid;

use super::account::name_locks;
use crate::domain::{
    duplicate::{DuplicateRules, Fingerprint},
    organization::{Organization, OrganizationProfile, Reminder},
};

struct Row {
    organization_id: Uuid,
    slug: String,
    display_name: String,
    default_locale: String,
    portal_url: String,
    allowed_return_origins: Vec<String>,
    sender_name: String,
    reply_to: String,
    logo_url: String,
    color: String,
    minimum_age: i32,
    time_zone: String,
    invitation_lifetime_seconds: i64,
    reinvite_after_seconds: i64,
    link_prompt_lifetime_seconds: i64,
    reminders: Json<Vec<Reminder>>,
    front_desk_threshold: f64,
    front_desk_expected_share: f64,
    import_threshold: f64,
    import_expected_share: f64,
    today: Date,
    version: i64,
    create_time: OffsetDateTime,
    update_time: OffsetDateTime,
}

impl From<Row> for Organization {
    fn from(row: Row) -> Self {
        Self {
            organization_id: row.organization_id,
            slug: row.slug,
            profile: OrganizationProfile {
                display_name: row.display_name,
                default_locale: row.default_locale,
                portal_url: row.portal_url,
                allowed_return_origins: row.allowed_return_origins,
                sender_name: row.sender_name,
                reply_to: row.reply_to,
                logo_url: row.logo_url,
                color: row.color,
                minimum_age: row.minimum_age,
                time_zone: row.time_zone,
                invitation_lifetime_seconds: row.invitation_lifetime_seconds,
                reinvite_after_seconds: row.reinvite_after_seconds,
                link_prompt_lifetime_seconds: row.link_prompt_lifetime_seconds,
                reminders: row.reminders.0,
                front_desk_duplicates: DuplicateRules {
                    threshold: row.front_desk_threshold,
                    expected_share: row.front_desk_expected_share,
                },
                import_duplicates: DuplicateRules {
                    threshold: row.import_threshold,
                    expected_share: row.import_expected_share,
                },
            },
            today: row.today,
            version: row.version,
            create_time: row.create_time,
            update_time: row.update_time,
        }
    }
}

/// Runs a query for whole organizations; `$tail` follows the columns.
macro_rules! select_organizations {
    ($head:literal, $tail:literal, $($argument:expr),* $(,)?) => {
        sqlx::query_as!(
            Row,
            $head
                + " organization_id, slug, display_name, default_locale, portal_url,
                    allowed_return_origins, sender_name, reply_to, logo_url, color, minimum_age, time_zone,
                    invitation_lifetime_seconds, reinvite_after_seconds, link_prompt_lifetime_seconds,
                    reminders AS \"reminders: Json<Vec<Reminder>>\", front_desk_threshold,
                    front_desk_expected_share, import_threshold, import_expected_share,
                    (statement_timestamp() AT TIME ZONE time_zone)::date AS \"today!\",
                    version, create_time, update_time "
                + $tail,
            $($argument),*
        )
    };
}

/// Creates an organization; `None` if its slug is taken.
///
/// # Errors
/// If the database fails.
pub async fn create(
    connection: &mut PgConnection,
    organization_id: Uuid,
    slug: &str,
    profile: &OrganizationProfile,
) -> Result<Option<Organization>, sqlx::Error> {
    let row = select_organizations!(
        "INSERT INTO organizations (
            organization_id, slug, display_name, default_locale, portal_url, allowed_return_origins,
            sender_name, reply_to, logo_url, color, minimum_age, invitation_lifetime_seconds,
            reinvite_after_seconds, link_prompt_lifetime_seconds, reminders, time_zone, front_desk_threshold,
            front_desk_expected_share, import_threshold, import_expected_share)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)
        ON CONFLICT (slug) DO NOTHING
        RETURNING",
        "",
        organization_id,
        slug,
        profile.display_name,
        profile.default_locale,
        profile.portal_url,
        &profile.allowed_return_origins,
        profile.sender_name,
        profile.reply_to,
        profile.logo_url,
        profile.color,
        profile.minimum_age,
        profile.invitation_lifetime_seconds,
        profile.reinvite_after_seconds,
        profile.link_prompt_lifetime_seconds,
        Json(&profile.reminders) as _,
        profile.time_zone,
        profile.front_desk_duplicates.threshold,
        profile.front_desk_duplicates.expected_share,
        profile.import_duplicates.threshold,
        profile.import_duplicates.expected_share,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(Organization::from))
}

/// Reads an organization.
///
/// # Errors
/// If the database fails.
pub async fn get(
    connection: &mut PgConnection,
    organization_id: Uuid,
) -> Result<Option<Organization>, sqlx::Error> {
    let row = select_organizations!(
        "SELECT",
        "FROM organizations WHERE organization_id = $1",
        organization_id,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(Organization::from))
}

/// Reads an organization for which a name is to be checked and written, and takes the locks of [`name_locks`]: in one
/// statement, which saves each create a round trip. What the locks protect is read by later statements; the
/// organization itself is what it was before they were waited for.
///
/// # Errors
/// If the database fails.
pub async fn get_and_lock_name(
    connection: &mut PgConnection,
    organization_id: Uuid,
    name: &Fingerprint,
) -> Result<Option<Organization>, sqlx::Error> {
    let row = select_organizations!(
        // Counted, so that all are taken, in their order, and make one row.
        "WITH locked AS MATERIALIZED (
            SELECT count(pg_advisory_xact_lock(lock)) FROM unnest($2::bigint[]) AS lock
        )
        SELECT",
        "FROM organizations, locked WHERE organization_id = $1",
        organization_id,
        &name_locks(organization_id, name),
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(Organization::from))
}

/// Reads an organization and keeps others from changing it until the transaction ends.
///
/// # Errors
/// If the database fails.
pub async fn lock(
    connection: &mut PgConnection,
    organization_id: Uuid,
) -> Result<Option<Organization>, sqlx::Error> {
    let row = select_organizations!(
        "SELECT",
        "FROM organizations WHERE organization_id = $1 FOR NO KEY UPDATE",
        organization_id,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(Organization::from))
}

/// Changes an organization that is locked.
///
/// # Errors
/// If the database fails.
pub async fn update(
    connection: &mut PgConnection,
    organization_id: Uuid,
    profile: &OrganizationProfile,
) -> Result<Organization, sqlx::Error> {
    let row = select_organizations!(
        "UPDATE organizations SET
            display_name = $2, default_locale = $3, portal_url = $4, allowed_return_origins = $5,
            sender_name = $6, reply_to = $7, logo_url = $8, color = $9, minimum_age = $10,
            invitation_lifetime_seconds = $11, reinvite_after_seconds = $12,
            link_prompt_lifetime_seconds = $13, reminders = $14, time_zone = $15, front_desk_threshold = $16,
            front_desk_expected_share = $17, import_threshold = $18, import_expected_share = $19,
            version = version + 1, update_time = now()
        WHERE organization_id = $1
        RETURNING",
        "",
        organization_id,
        profile.display_name,
        profile.default_locale,
        profile.portal_url,
        &profile.allowed_return_origins,
        profile.sender_name,
        profile.reply_to,
        profile.logo_url,
        profile.color,
        profile.minimum_age,
        profile.invitation_lifetime_seconds,
        profile.reinvite_after_seconds,
        profile.link_prompt_lifetime_seconds,
        Json(&profile.reminders) as _,
        profile.time_zone,
        profile.front_desk_duplicates.threshold,
        profile.front_desk_duplicates.expected_share,
        profile.import_duplicates.threshold,
        profile.import_duplicates.expected_share,
    )
    .fetch_one(connection)
    .await?;
    Ok(row.into())
}

/// Lists organizations, oldest first, after the one that the page before ended with.
///
/// # Errors
/// If the database fails.
pub async fn list(
    connection: &mut PgConnection,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Organization>, sqlx::Error> {
    let rows = select_organizations!(
        "SELECT",
        "FROM organizations WHERE organization_id > $1 ORDER BY organization_id LIMIT $2",
        after.unwrap_or(Uuid::nil()),
        limit,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Organization::from).collect())
}
