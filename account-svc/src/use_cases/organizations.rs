//! Organizations: the tenants.

use sqlx::PgConnection;
use usher_runtime::{audit::AuditEntry, change::Change, fields::InvalidFields, page::Page};
use uuid::Uuid;

use crate::{
    context::Context,
    db,
    domain::{
        audit::AuditAction,
        duplicate::Fingerprint,
        organization::{Organization, OrganizationChange, OrganizationProfile},
    },
    error::Error,
};

/// Creates an organization.
///
/// # Errors
/// If the slug is taken, or the time zone unknown.
pub async fn create(
    context: &Context,
    change: &mut Change,
    slug: &str,
    profile: &OrganizationProfile,
) -> Result<Organization, Error> {
    check_time_zone(context, change, &profile.time_zone).await?;
    let organization = db::organization::create(change, Uuid::now_v7(), slug, profile)
        .await?
        .ok_or(Error::SlugTaken)?;
    change.organization_id = organization.organization_id;
    change.audit(
        AuditEntry::of_organization(AuditAction::OrganizationCreated)
            .detail("slug", &organization.slug),
    );
    Ok(organization)
}

/// Reads an organization.
///
/// # Errors
/// If there is none.
pub async fn read(
    connection: &mut PgConnection,
    organization_id: Uuid,
) -> Result<Organization, Error> {
    db::organization::get(connection, organization_id)
        .await?
        .ok_or(Error::OrganizationNotFound(organization_id))
}

/// Reads an organization in which an account is to get this name. Calls for equal names wait for each other until they
/// end: of many that are sent at the same time, one succeeds and the others are warned of it. Before the duplicate
/// check, which then sees what others wrote.
///
/// # Errors
/// If there is none.
pub async fn read_and_lock_name(
    change: &mut Change,
    name: &Fingerprint,
) -> Result<Organization, Error> {
    let organization_id = change.organization_id;
    db::organization::get_and_lock_name(change, organization_id, name)
        .await?
        .ok_or(Error::OrganizationNotFound(organization_id))
}

/// Changes an organization in the fields named.
///
/// # Errors
/// If there is none, it is not at `version` any more, or the time zone is unknown.
pub async fn update(
    context: &Context,
    change: &mut Change,
    version: Option<i64>,
    new: OrganizationChange,
    fields: &[String],
) -> Result<Organization, Error> {
    let organization_id = change.organization_id;
    let organization = db::organization::lock(change, organization_id)
        .await?
        .ok_or(Error::OrganizationNotFound(organization_id))?;
    if version.is_some_and(|version| version != organization.version) {
        return Err(Error::EtagMismatch("organization"));
    }
    if let Some(time_zone) = &new.time_zone {
        check_time_zone(context, change, time_zone).await?;
    }
    let profile = organization.profile.changed(new);
    let organization = db::organization::update(change, organization_id, &profile).await?;
    change.audit(
        AuditEntry::of_organization(AuditAction::OrganizationUpdated)
            .detail("changed_fields", fields.join(",")),
    );
    Ok(organization)
}

/// Lists organizations, oldest first.
///
/// # Errors
/// If the database fails.
pub async fn list(connection: &mut PgConnection, page: &Page) -> Result<Vec<Organization>, Error> {
    Ok(db::organization::list(connection, page.after, page.limit()).await?)
}

async fn check_time_zone(
    context: &Context,
    connection: &mut PgConnection,
    time_zone: &str,
) -> Result<(), Error> {
    if context.time_zones.contain(connection, time_zone).await? {
        return Ok(());
    }
    Err(InvalidFields::one(
        "organization.settings.time_zone",
        "not a name of the IANA time zone database, for example `America/Montreal`",
    )
    .into())
}
