//! Changing the profile of an account.

use usher_runtime::{audit::AuditEntry, change::Change, error::CommonError};
use uuid::Uuid;

use super::{
    accounts::{self, Decisions},
    duplicates,
    invitations::{self, Addressee},
    organizations,
};
use crate::{
    context::Context,
    db::{self, account::Account, invitation::End},
    domain::{
        audit::AuditAction,
        duplicate::Fingerprint,
        email::Email,
        profile::{Profile, ProfileChange},
        state::{AccountState, InvitationKind},
    },
    error::Error,
    events,
};

/// A change of an account.
#[derive(Debug)]
pub struct Update {
    /// The account.
    pub account_id: Uuid,
    /// The version that the caller read, to be refused if another change was made since.
    pub version: Option<i64>,
    /// The new values.
    pub new: ProfileChange,
    /// Names of the fields, for listeners.
    pub fields: Vec<String>,
    /// What the caller decided.
    pub decisions: Decisions,
}

/// Changes the profile of an account. A new email revokes the open invitations to the old one and, unless
/// held back, invites the client to the new one, with the form and return URL of the newest of them.
///
/// # Errors
/// If there is no such account, it changed meanwhile, or the change breaks a rule.
pub async fn update(
    context: &Context,
    change: &mut Change,
    update: Update,
) -> Result<Account, Error> {
    let organization_id = change.organization_id;
    let account = lock(change, update.account_id, update.version).await?;
    let account_id = account.account_id;
    let before = &account.profile;
    let after = before.clone().changed(update.new);
    accounts::check_size(&after)?;
    // What is left out when names are compared cannot make a duplicate.
    let name_changed = !before.name.folds_as(&after.name);
    let identity = after.identity();
    let fingerprint = Fingerprint::new(&identity);
    let organization = if name_changed {
        organizations::read_and_lock_name(change, &fingerprint).await?
    } else {
        organizations::read(change, organization_id).await?
    };
    // What the change leaves alone was decided before, perhaps under other rules.
    if before.birth_date != after.birth_date || before.members != after.members {
        accounts::check_birth_dates(&organization, &after)?;
    }
    let decisions = &update.decisions;
    // The same mailbox, in other capitals, is not another email.
    let email_changed = canonical(before) != canonical(&after);
    // Also while it is closed: it is the client's own again when it is opened.
    if email_changed && account.person_id.is_some() {
        return Err(Error::EmailOwnedByClient(account_id));
    }
    let mut kind = InvitationKind::Activation;
    if email_changed || name_changed {
        let report = if name_changed {
            duplicates::report(
                change,
                &organization,
                decisions.entry_mode,
                (&identity, &fingerprint),
                Some(account_id),
            )
            .await?
        } else {
            let email = canonical(&after);
            duplicates::email_report(change, organization_id, email, account_id).await?
        };
        if email_changed {
            kind = duplicates::refuse_taken_email(&report, decisions)?;
        }
        if name_changed
            && let Some(entry) = duplicates::refuse_possible_duplicates(
                organization_id,
                &report,
                decisions,
                account_id,
            )?
        {
            change.audit(entry);
        }
    }

    write(change, &account, &after, &fingerprint).await?;
    if email_changed {
        invitations::end(change, account_id, End::Revoked).await?;
        if !decisions.hold_invitation
            && account.state != AccountState::Closed
            && let Some(addressee) =
                Addressee::new(account_id, &after, account.last_invitation.as_ref())
        {
            let options = &decisions.invitation;
            invitations::create(context, change, &organization, &addressee, kind, options).await?;
        }
    }
    finish(change, account_id, update.fields).await
}

/// Keeps others from changing the account until the transaction ends.
async fn lock(
    change: &mut Change,
    account_id: Uuid,
    version: Option<i64>,
) -> Result<Account, Error> {
    let organization_id = change.organization_id;
    let account = db::account::lock(change, organization_id, account_id)
        .await?
        .ok_or(Error::AccountNotFound(account_id))?;
    if version.is_some_and(|version| version != account.version) {
        return Err(Error::EtagMismatch("account"));
    }
    Ok(account)
}

/// Reads what the account has become, and records the change.
async fn finish(
    change: &mut Change,
    account_id: Uuid,
    fields: Vec<String>,
) -> Result<Account, Error> {
    let organization_id = change.organization_id;
    let account = accounts::read(change, organization_id, account_id).await?;
    change.audit(
        AuditEntry::of_resource(AuditAction::AccountUpdated, account_id)
            .detail("changed_fields", fields.join(",")),
    );
    change.emit(events::account_updated(
        organization_id,
        account_id,
        fields,
        account.update_time,
    ));
    Ok(account)
}

fn canonical(profile: &Profile) -> Option<&str> {
    profile.email.as_ref().map(Email::canonical)
}

async fn write(
    change: &mut Change,
    before: &Account,
    after: &Profile,
    fingerprint: &Fingerprint,
) -> Result<(), Error> {
    match db::account::update(
        change,
        before.organization_id,
        before.account_id,
        after,
        fingerprint,
        before.state != AccountState::Closed,
    )
    .await
    {
        // Somebody gave the email to another account since the check. The transaction is lost; a repeated
        // call will name that account.
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
            Err(CommonError::ConcurrentUpdate.into())
        }
        result => Ok(result?),
    }
}
