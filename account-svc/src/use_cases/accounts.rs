//! Accounts: reading them, and what the caller decides when one is created or changed.

use std::collections::HashMap;

use sqlx::PgConnection;
use usher_runtime::{
    fields::InvalidFields,
    hidden_debug,
    page::{Page, Rows},
};
use uuid::Uuid;

use super::{invitations::InvitationOptions, organizations};
use crate::{
    db::{self, account::Account},
    domain::{
        birth_date,
        organization::{EntryMode, Organization},
        profile::{MAX_TEXT_BYTES, Profile},
        state::AccountState,
    },
    error::Error,
};

/// What the caller decided about duplicates and the invitation.
#[derive(Clone, Default)]
pub struct Decisions {
    /// Send nothing now.
    pub hold_invitation: bool,
    /// Ask a Person who has the email elsewhere on the platform to share; otherwise refuse.
    pub request_share: bool,
    /// Where the entry comes from.
    pub entry_mode: EntryMode,
    /// `acknowledgement` of the report that the caller ignores.
    pub acknowledgement: String,
    /// Why it is ignored, for the audit log.
    pub acknowledgement_reason: String,
    /// What staff add to the invitation.
    pub invitation: InvitationOptions,
}

hidden_debug!(Decisions { entry_mode });

/// Reads an account.
///
/// # Errors
/// If there is none in this organization.
pub async fn read(
    connection: &mut PgConnection,
    organization_id: Uuid,
    account_id: Uuid,
) -> Result<Account, Error> {
    db::account::get(connection, organization_id, account_id)
        .await?
        .ok_or(Error::AccountNotFound(account_id))
}

/// Reads several accounts, in the order asked for, and the ids that do not exist in this
/// organization.
///
/// # Errors
/// If there is no such organization.
pub async fn batch_get(
    connection: &mut PgConnection,
    organization_id: Uuid,
    account_ids: &[Uuid],
) -> Result<(Vec<Account>, Vec<Uuid>), Error> {
    organizations::read(connection, organization_id).await?;
    let found = db::account::batch_get(connection, organization_id, account_ids).await?;
    let mut by_id: HashMap<Uuid, Account> = found
        .into_iter()
        .map(|account| (account.account_id, account))
        .collect();
    let mut accounts = Vec::with_capacity(by_id.len());
    let mut missing = Vec::new();
    for account_id in account_ids {
        match by_id.remove(account_id) {
            Some(account) => accounts.push(account),
            None => missing.push(*account_id),
        }
    }
    Ok((accounts, missing))
}

/// Lists accounts, newest first: in any of `states`, or in all if there are none.
///
/// # Errors
/// If there is no such organization.
pub async fn list(
    connection: &mut PgConnection,
    organization_id: Uuid,
    states: &[AccountState],
    page: &Page,
) -> Result<Rows<Account>, Error> {
    organizations::read(connection, organization_id).await?;
    Ok(db::account::list(
        connection,
        organization_id,
        states,
        page.after,
        page.limit(),
    )
    .await?)
}

/// The whole of an account must fit into lists.
pub(super) fn check_size(profile: &Profile) -> Result<(), Error> {
    let bytes = profile.text_bytes();
    if bytes > MAX_TEXT_BYTES {
        let description =
            format!("its texts have {bytes} bytes together; at most {MAX_TEXT_BYTES} are accepted");
        return Err(InvalidFields::one("account", description).into());
    }
    Ok(())
}

/// The holder must be old enough, and nobody is born tomorrow.
pub(super) fn check_birth_dates(
    organization: &Organization,
    profile: &Profile,
) -> Result<(), Error> {
    let members = profile.members.iter().map(|member| member.birth_date);
    if profile.birth_date.is_none() && members.clone().all(|date| date.is_none()) {
        return Ok(());
    }
    let today = organization.today;
    for (index, date) in members.enumerate() {
        if let Some(Err(error)) = date.map(|date| birth_date::age(date, today)) {
            let field = format!("account.members[{index}].birth_date");
            return Err(InvalidFields::one(field, error).into());
        }
    }
    let Some(date) = profile.birth_date else {
        return Ok(());
    };
    let age = birth_date::age(date, today)
        .map_err(|error| InvalidFields::one("account.birth_date", error))?;
    let minimum_age = organization.profile.minimum_age;
    if i64::from(age) < i64::from(minimum_age) {
        return Err(Error::HolderUnderAge { minimum_age });
    }
    Ok(())
}
