//! Creating an account for a client.

use usher_runtime::{audit::AuditEntry, change::Change, error::CommonError};
use uuid::Uuid;

use super::{
    accounts::{self, Decisions},
    duplicates,
    invitations::{Addressee, Draft},
    organizations,
};
use crate::{
    context::Context,
    db::{
        self,
        account::{Account, NewAccount},
        invitation::Times,
    },
    domain::{audit::AuditAction, duplicate::Fingerprint, profile::Profile},
    error::Error,
    events,
};

/// Creates an account for a client and, unless held back, invites them.
///
/// # Errors
/// If the profile breaks a rule of the organization, or looks like an account that exists.
pub async fn create(
    context: &Context,
    change: &mut Change,
    profile: &Profile,
    decisions: &Decisions,
) -> Result<Account, Error> {
    accounts::check_size(profile)?;
    let identity = profile.identity();
    let fingerprint = Fingerprint::new(&identity);
    let organization = organizations::read_and_lock_name(change, &fingerprint).await?;
    accounts::check_birth_dates(&organization, profile)?;
    let entry = (&identity, &fingerprint);
    let report =
        duplicates::report(change, &organization, decisions.entry_mode, entry, None).await?;
    let kind = duplicates::refuse_taken_email(&report, decisions)?;
    let organization_id = organization.organization_id;
    let account_id = Uuid::now_v7();
    let ignored =
        duplicates::refuse_possible_duplicates(organization_id, &report, decisions, account_id)?;

    let addressee =
        Addressee::new(account_id, profile, None).filter(|_| !decisions.hold_invitation);
    let options = &decisions.invitation;
    // Also of an invitation that comes later: the caller learns of the fault at once.
    options.check(context, &organization)?;
    let draft = addressee
        .map(|addressee| Draft::new(context, change, &organization, &addressee, kind, options))
        .transpose()?;
    let new = NewAccount {
        organization_id,
        account_id,
        profile,
        fingerprint: &fingerprint,
        invitation: draft.as_ref().map(|draft| &draft.invitation),
    };
    let Some((create_time, expire_time)) = db::account::create(change, &new).await? else {
        // Another call created it since the check.
        return Err(email_taken(change, profile).await?);
    };
    change.audit(AuditEntry::of_resource(
        AuditAction::AccountCreated,
        account_id,
    ));
    if let Some(entry) = ignored {
        change.audit(entry);
    }
    let invitation = match (draft, expire_time) {
        (Some(draft), Some(expire_time)) => {
            let times = Times {
                create_time,
                expire_time,
            };
            Some(draft.announce(context, change, times)?)
        }
        _ => None,
    };
    let account = Account::created(
        organization_id,
        account_id,
        profile,
        create_time,
        invitation,
    );
    change.emit(events::account_created(
        organization_id,
        account_id,
        account.state,
        create_time,
    ));
    Ok(account)
}

async fn email_taken(change: &mut Change, profile: &Profile) -> Result<Error, Error> {
    let organization_id = change.organization_id;
    let email = profile
        .email
        .as_ref()
        .ok_or(CommonError::ConcurrentUpdate)?;
    let taken_by = db::account::find_by_email(change, organization_id, email.canonical()).await?;
    // Taken a moment ago and free again.
    Ok(taken_by.map_or(
        CommonError::ConcurrentUpdate.into(),
        Error::EmailInOrganization,
    ))
}
