//! Closing an account, and opening it again.

use usher_runtime::{audit::AuditEntry, change::Change, error::CommonError};
use uuid::Uuid;

use super::{accounts, invitations};
use crate::{
    db::{self, account::Account, invitation::End},
    domain::{audit::AuditAction, duplicate::Fingerprint, email::Email, state::AccountState},
    error::Error,
    events,
};

/// Closes an account: nobody can log in or be invited, open invitations are withdrawn, and the email is free
/// for another account. Its data stay. One that is closed stays as it is.
///
/// # Errors
/// If there is no such account.
pub async fn close(change: &mut Change, account_id: Uuid, reason: &str) -> Result<Account, Error> {
    let organization_id = change.organization_id;
    let account = lock(change, account_id).await?;
    if account.state == AccountState::Closed {
        change.mark_unchanged();
        return Ok(account);
    }
    db::account::close(change, organization_id, account_id).await?;
    invitations::end(change, account_id, End::Revoked).await?;
    let closed = accounts::read(change, organization_id, account_id).await?;
    change.emit(events::account_closed(
        organization_id,
        account_id,
        closed.update_time,
    ));
    change.audit(
        AuditEntry::of_resource(AuditAction::AccountClosed, account_id)
            .detail("state_before", account.state.as_str())
            .detail("reason", reason),
    );
    Ok(closed)
}

/// Opens a closed account again. Its invitations stay withdrawn; a client who took it over before can log in
/// again.
///
/// # Errors
/// If there is no such account, or another one has its email by now.
pub async fn reopen(change: &mut Change, account_id: Uuid) -> Result<Account, Error> {
    let organization_id = change.organization_id;
    let account = lock(change, account_id).await?;
    if account.state != AccountState::Closed {
        change.mark_unchanged();
        return Ok(account);
    }
    if let Some(email) = account.profile.email.as_ref().map(Email::canonical)
        && let Some(taken_by) = db::account::find_by_email(change, organization_id, email).await?
    {
        return Err(Error::EmailTakenWhileClosed(taken_by));
    }
    let fingerprint = Fingerprint::new(&account.profile.identity());
    match db::account::reopen(change, organization_id, account_id, &fingerprint).await {
        // Somebody gave the email to another account since the look-up; a repeated call will name it.
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
            return Err(CommonError::ConcurrentUpdate.into());
        }
        result => result?,
    }
    let reopened = accounts::read(change, organization_id, account_id).await?;
    change.emit(events::account_updated(
        organization_id,
        account_id,
        vec!["state".to_owned()],
        reopened.update_time,
    ));
    change.audit(
        AuditEntry::of_resource(AuditAction::AccountReopened, account_id)
            .detail("state", reopened.state.as_str()),
    );
    Ok(reopened)
}

async fn lock(change: &mut Change, account_id: Uuid) -> Result<Account, Error> {
    let organization_id = change.organization_id;
    db::account::lock(change, organization_id, account_id)
        .await?
        .ok_or(Error::AccountNotFound(account_id))
}
