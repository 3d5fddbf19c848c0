//! Showing single emails.

use sqlx::PgPool;
use usher_runtime::{
    call::Call,
    database::{Scope, begin},
    page::Page,
};
use uuid::Uuid;

use crate::{
    db::delivery::{self, Delivery, DeliveryFilter},
    error::Error,
};

/// Reads an email.
///
/// # Errors
/// If there is none in this organization.
pub async fn get(pool: &PgPool, call: &Call, delivery_id: Uuid) -> Result<Delivery, Error> {
    let mut tx = begin(pool, Scope::Organization(call.organization_id)).await?;
    let delivery = delivery::get(&mut tx, call.organization_id, delivery_id).await?;
    tx.commit().await?;
    delivery.ok_or(Error::DeliveryNotFound(delivery_id))
}

/// Reads a page of emails, newest first, with the token of the next page.
///
/// # Errors
/// If the database fails.
pub async fn list(
    pool: &PgPool,
    call: &Call,
    filter: &DeliveryFilter,
    page: &Page,
) -> Result<(Vec<Delivery>, String), Error> {
    let mut tx = begin(pool, Scope::Organization(call.organization_id)).await?;
    let rows = delivery::list(
        &mut tx,
        call.organization_id,
        filter,
        page.after,
        page.limit(),
    )
    .await?;
    tx.commit().await?;
    Ok(page.cut(rows, |row| row.delivery_id))
}
