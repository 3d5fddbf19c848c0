//! Organizations: the tenants.

use uuid::Uuid;

use crate::{
    context::Context,
    db,
    domain::organization::{Organization, OrganizationProfile},
    error::Error,
    idempotency::{self, RequestKey},
};

/// Creates an organization.
///
/// # Errors
/// If the slug is taken.
pub async fn create(
    context: &Context,
    slug: &str,
    profile: &OrganizationProfile,
    key: Option<&RequestKey>,
) -> Result<Organization, Error> {
    let mut tx = context.begin_platform().await?;
    if let Some(answer) = idempotency::replay(&mut tx, Uuid::nil(), key).await? {
        return Ok(answer);
    }
    let organization = db::organization::create(&mut tx, Uuid::now_v7(), slug, profile)
        .await?
        .ok_or(Error::SlugTaken)?;
    idempotency::keep(&mut tx, Uuid::nil(), key, &organization).await?;
    tx.commit().await?;
    Ok(organization)
}

/// Reads an organization.
///
/// # Errors
/// If there is none.
pub async fn get(context: &Context, organization_id: Uuid) -> Result<Organization, Error> {
    let mut tx = context.begin(organization_id).await?;
    db::organization::get(&mut tx, organization_id)
        .await?
        .ok_or(Error::OrganizationNotFound(organization_id))
}

/// Changes an organization: `change` makes the new profile of the old one.
///
/// # Errors
/// If there is none, or it is not at `version` any more.
pub async fn update(
    context: &Context,
    organization_id: Uuid,
    version: Option<i64>,
    change: impl FnOnce(OrganizationProfile) -> OrganizationProfile,
    key: Option<&RequestKey>,
) -> Result<Organization, Error> {
    let mut tx = context.begin(organization_id).await?;
    if let Some(answer) = idempotency::replay(&mut tx, organization_id, key).await? {
        return Ok(answer);
    }
    let organization = db::organization::lock(&mut tx, organization_id)
        .await?
        .ok_or(Error::OrganizationNotFound(organization_id))?;
    if version.is_some_and(|version| version != organization.version) {
        return Err(Error::EtagMismatch);
    }
    let profile = change(organization.profile);
    let organization = db::organization::update(&mut tx, organization_id, &profile).await?;
    idempotency::keep(&mut tx, organization_id, key, &organization).await?;
    tx.commit().await?;
    Ok(organization)
}

/// Lists organizations, oldest first.
///
/// # Errors
/// If the database fails.
pub async fn list(
    context: &Context,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Organization>, Error> {
    let mut tx = context.begin_platform().await?;
    Ok(db::organization::list(&mut tx, after, limit).await?)
}
