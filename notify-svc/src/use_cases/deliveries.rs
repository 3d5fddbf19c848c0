//! Single emails: reading and watching them, stopping one, and sending one again.

use std::time::Duration;

use sqlx::PgConnection;
use usher_runtime::{
    audit::AuditEntry,
    change::{Change, Store},
    database::{Scope, within},
    page::Page,
};
use uuid::Uuid;

use crate::{
    db::delivery::{self, Delivery, DeliveryFilter, Waiting},
    domain::{DeliveryState, RecipientLimits},
    error::Error,
    events,
    metrics::Metrics,
    use_cases::recipient_throttle::{self, Email, Slots},
};

/// Most changes that are read at once.
const CHANGES: i64 = 200;

/// Longest time of a look at what changed; a database that takes longer counts as away.
const DATABASE_DEADLINE: Duration = Duration::from_secs(10);

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

/// Follows the emails of an organization.
pub struct Watch {
    store: Store,
    organization_id: Uuid,
    invitation_id: Option<Uuid>,
    /// The last change that was seen, as transaction and email.
    seen: (i64, Uuid),
}

impl Watch {
    /// Follows the emails of one invitation or of all, from now on.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn start(
        store: Store,
        organization_id: Uuid,
        invitation_id: Option<Uuid>,
    ) -> Result<Self, Error> {
        let scope = Scope::Organization(organization_id);
        let oldest = store
            .read_in(scope, async |tx| {
                Ok::<_, Error>(delivery::oldest_running(tx).await?)
            })
            .await?;
        Ok(Self {
            store,
            organization_id,
            invitation_id,
            seen: (oldest, Uuid::nil()),
        })
    }

    /// What was changed since the last time, each email once, as it is now; at most [`CHANGES`], and none if all was seen.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn changes(&mut self) -> Result<Vec<Delivery>, Error> {
        let (seen, invitation_id) = (self.seen, self.invitation_id);
        let organization_id = self.organization_id;
        let scope = Scope::Organization(organization_id);
        let reading = self.store.read_in(scope, async |tx| {
            // A statement of its own: what had ended by then is seen by the next one.
            let until = delivery::oldest_running(tx).await?;
            let changed =
                delivery::changed(tx, organization_id, invitation_id, seen, until, CHANGES).await?;
            Ok::<_, Error>((until, changed))
        });
        let (until, changed) = Box::pin(within(DATABASE_DEADLINE, reading)).await?;
        self.seen = match changed.last() {
            Some(last) => (last.change_xid, last.delivery_id),
            // So that what belongs to others is not passed over again.
            None => self.seen.max((until, Uuid::nil())),
        };
        Ok(changed)
    }
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

/// Sends an email that failed again: it gets a new slot of its recipient, and moves others, whoever sends them: so it
/// needs the platform's scope. One that waits already stays as it is.
///
/// # Errors
/// If there is none in this organization, or it has not failed, its link can be sent no more, or would expire before the
/// recipient may be written to.
pub async fn retry(
    change: &mut Change,
    limits: &RecipientLimits,
    metrics: &Metrics,
    delivery_id: Uuid,
) -> Result<Delivery, Error> {
    let organization_id = change.organization_id;
    let ended = delivery::lock_ended(change, organization_id, delivery_id)
        .await?
        .ok_or(Error::DeliveryNotFound(delivery_id))?;
    if ended.state.waits() {
        change.mark_unchanged();
        return read(change, organization_id, delivery_id).await;
    }
    let refused = |why| Error::DeliveryNotRetryable {
        delivery_id,
        state: ended.state,
        why,
    };
    if ended.state != DeliveryState::Failed {
        return Err(refused(
            "only one that failed can; ask for another invitation instead",
        ));
    }
    if ended.is_revoked || ended.expire_time <= ended.now || !ended.has_token {
        return Err(refused(
            "its link has expired, or was revoked or replaced by a newer one; ask for another invitation instead",
        ));
    }
    let email = Email {
        delivery_id,
        mail_class: ended.mail_class,
        recipient: &ended.recipient,
        expire_time: ended.expire_time,
    };
    let mut slots = Slots::lock(change, limits, ended.now, &[], [email.key()]).await?;
    let time = slots
        .reserve(&email)
        .ok_or_else(|| refused(recipient_throttle::expires_before(false)))?;
    let retried = delivery::requeue(change, organization_id, delivery_id, time).await?;
    let moved = slots.write(change).await?;
    change.audit(AuditEntry::of_resource("delivery.retried", delivery_id));
    for changed in [retried].into_iter().chain(moved) {
        metrics.states([changed.state]);
        change.emit(events::delivery_changed(changed));
    }
    read(change, organization_id, delivery_id).await
}
