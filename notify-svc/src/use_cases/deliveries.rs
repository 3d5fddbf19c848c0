//! Single emails: reading them, and stopping one.

use sqlx::PgConnection;
use usher_runtime::{audit::AuditEntry, change::Change, page::Page};
use uuid::Uuid;

use crate::{
    db::delivery::{self, Delivery, DeliveryFilter, Waiting},
    domain::{DeliveryState, RecipientLimits},
    error::Error,
    events,
    metrics::Metrics,
    use_cases::recipient_throttle,
};

/// Reads an email.
///
/// # Errors
/// If there is none in this organization.
pub async fn read(
    connection: &mut PgConnection,
    organization_id: Uuid,
    delivery_id: Uuid,
) -> Result<Delivery, Error> {
    delivery::get(connection, organization_id, delivery_id)
        .await?
        .ok_or(Error::DeliveryNotFound(delivery_id))
}

/// Lists emails, newest first.
///
/// # Errors
/// If the database fails.
pub async fn list(
    connection: &mut PgConnection,
    organization_id: Uuid,
    filter: &DeliveryFilter,
    page: &Page,
) -> Result<Vec<Delivery>, Error> {
    let (after, limit) = (page.after, page.limit());
    Ok(delivery::list(connection, organization_id, filter, after, limit).await?)
}

/// Stops an email that was not sent yet: nothing of it is handed to the relay any more, and its recipient's later emails
/// move forward, whoever sends them: so it needs the platform's scope. One that was cancelled before stays as it is.
///
/// # Errors
/// If there is none in this organization, it is being handed over at this moment, or it was sent or ended
/// otherwise.
pub async fn cancel(
    change: &mut Change,
    limits: &RecipientLimits,
    metrics: &Metrics,
    delivery_id: Uuid,
) -> Result<Delivery, Error> {
    let organization_id = change.organization_id;
    // The sender marks an email under the same lock before it hands it over.
    let waiting = delivery::lock(change, organization_id, delivery_id).await?;
    let before = read(change, organization_id, delivery_id).await?;
    match waiting {
        _ if before.state == DeliveryState::Cancelled => {
            change.mark_unchanged();
            return Ok(before);
        }
        None => {
            let state = before.state;
            return Err(Error::DeliveryEnded { delivery_id, state });
        }
        Some(Waiting { handing_over: true }) => return Err(Error::DeliveryBeingSent(delivery_id)),
        Some(_) => {}
    }
    let cancelled = delivery::cancel(change, organization_id, delivery_id).await?;
    let invitation_id = cancelled
        .invitation_id
        .map(|id| id.to_string())
        .unwrap_or_default();
    change.audit(
        AuditEntry::of_resource("delivery.cancelled", delivery_id)
            .detail("invitation_id", invitation_id)
            .detail("state_before", before.state.as_str()),
    );
    let now = cancelled.change_time;
    let moved = recipient_throttle::free(change, limits, now, &[delivery_id]).await?;
    for changed in [cancelled].into_iter().chain(moved) {
        metrics.states([changed.state]);
        change.emit(events::delivery_changed(changed));
    }
    read(change, organization_id, delivery_id).await
}
