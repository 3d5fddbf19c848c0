//! When a recipient can be written to, for staff who ask why an email waits.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    db::{recipient_slot, throttle},
    domain::{LimitName, Recipient, RecipientKey, RecipientLimits, RecipientQueue},
    limits::SharedLimits,
    throttle::Micros,
};

/// When the next email to a recipient could go, under each limit alone. It tells times only: the emails of other
/// organizations count, and nothing else is said of them.
pub struct ThrottleState {
    /// Names and times of the limits.
    pub limits: Vec<(&'static str, OffsetDateTime)>,
    /// When an email would go that was asked for now.
    pub next_slot_time: OffsetDateTime,
}

/// Shows what an invitation of an organization to a recipient would wait for, if somebody asked for it now.
///
/// # Errors
/// If the database fails.
pub async fn show(
    connection: &mut PgConnection,
    recipient_limits: &RecipientLimits,
    shared_limits: &SharedLimits,
    organization_id: Uuid,
    recipient: &Recipient,
) -> Result<ThrottleState, sqlx::Error> {
    let now = throttle::now(connection).await?;
    let window = *recipient_limits.get(LimitName::Mail);
    let mut queue = RecipientQueue::new(window, now);
    let key = RecipientKey::new(LimitName::Mail, recipient);
    for slot in recipient_slot::read(connection, &[key.0]).await? {
        queue.load(slot);
    }
    let mut limits = vec![("recipient", queue.slot_for_new(&window.without_gap()))];
    if let Some(gap) = window.gap_alone() {
        limits.push(("recipient_gap", queue.slot_for_new(&gap)));
    }
    let (keys, shared): (Vec<_>, Vec<_>) = shared_limits
        .of(organization_id, recipient)
        .into_iter()
        .unzip();
    let arrivals = throttle::read(connection, &keys).await?;
    let now_micros = Micros::try_from(now.unix_timestamp_nanos() / 1_000).unwrap_or(Micros::MAX);
    for (key, limit) in keys.iter().zip(shared) {
        let name = (key.limit_name.to_owned(), key.hash().to_vec());
        let arrival = arrivals.get(&name).copied().unwrap_or_default();
        let free = limit.free_time(arrival, now_micros, 0);
        let wait = u64::try_from(free - now_micros).unwrap_or_default();
        limits.push((key.limit_name, now + std::time::Duration::from_micros(wait)));
    }
    let next = limits.iter().map(|(_, time)| *time);
    Ok(ThrottleState {
        next_slot_time: next.fold(queue.slot_for_new(&window), OffsetDateTime::max),
        limits,
    })
}
