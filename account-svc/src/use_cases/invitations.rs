//! Invitations: sending, listing, revoking.

mod draft;

use sqlx::PgConnection;
use usher_runtime::{
    audit::AuditEntry,
    change::Change,
    page::{Page, Rows},
};
use uuid::Uuid;

pub use self::draft::{Addressee, Draft, InvitationOptions};
use super::organizations;
use crate::{
    context::Context,
    db::{
        self,
        account::Account,
        invitation::{End, Ended, Invitation},
    },
    domain::{
        audit::AuditAction,
        organization::{Organization, OrganizationProfile},
        state::{AccountState, InvitationKind, InvitationState},
    },
    error::Error,
    events,
};

/// What became of a request to invite.
#[derive(Debug)]
pub struct SendOutcome {
    /// The invitation whose email goes.
    pub invitation: Invitation,
    /// Its email waited already: no other was asked for.
    pub already_waiting: bool,
}

/// Invites the client of one account, for the first time or again. While an email of the account waits, there is no
/// further one, unless notify-svc has not said anything of it for long. Older links work until the new email has left.
///
/// # Errors
/// If there is no such account, or it has no email, is active or closed.
pub async fn send(
    context: &Context,
    change: &mut Change,
    account_id: Uuid,
    options: &InvitationOptions,
) -> Result<SendOutcome, Error> {
    let organization_id = change.organization_id;
    let organization = organizations::read(change, organization_id).await?;
    let account = db::account::lock(change, organization_id, account_id)
        .await?
        .ok_or(Error::AccountNotFound(account_id))?;
    let addressee = invitable(&account)?;
    if let Some(newest) = addressee.newest.filter(|newest| newest.state.is_waiting())
        && let Some(waiting) = give_up_or_wait(change, newest).await?
    {
        let profile = &organization.profile;
        return Ok(SendOutcome {
            invitation: keep_waiting(context, change, profile, waiting, options).await?,
            already_waiting: true,
        });
    }
    // The Person may have signed up elsewhere since the account was created.
    let kind = if db::person::exists(change, addressee.email.canonical()).await? {
        InvitationKind::ShareRequest
    } else {
        InvitationKind::Activation
    };
    Ok(SendOutcome {
        invitation: create(context, change, &organization, &addressee, kind, options).await?,
        already_waiting: false,
    })
}

/// Gives an email up of which notify-svc has not said anything for ten minutes. Answers the invitation of any other that
/// still waits.
///
/// Otherwise a request that notify-svc could not take over, and parked, would keep all further ones away until the
/// invitation expires. Should the request only be late, its email is stopped: the next one takes its place, so that
/// one waits at most. Should the email have left without a report, its link works until the next one has left too.
async fn give_up_or_wait(
    change: &mut Change,
    newest: &Invitation,
) -> Result<Option<Invitation>, Error> {
    let (organization_id, invitation_id) = (newest.organization_id, newest.invitation_id);
    let Some(time) = db::invitation::give_up(change, organization_id, invitation_id).await? else {
        // A report may have come since it was read: the lock of the account keeps none away.
        let now = read(change, organization_id, invitation_id).await?;
        return Ok(Some(now).filter(|now| now.state.is_waiting()));
    };
    let send_count = newest.send_count;
    change.emit(events::invitation_revoked(
        organization_id,
        invitation_id,
        send_count,
        time,
    ));
    Ok(None)
}

/// Answers the invitation whose email waits, with the form and the return URL that were asked for now: the portal
/// reads them when the link is used.
async fn keep_waiting(
    context: &Context,
    change: &mut Change,
    profile: &OrganizationProfile,
    waiting: Invitation,
    options: &InvitationOptions,
) -> Result<Invitation, Error> {
    let (form_id, return_url) = options.resolve(&context.rules, profile, Some(&waiting))?;
    let changed_fields: Vec<_> = [
        ("form_id", form_id != waiting.form_id),
        ("return_url", return_url != waiting.return_url),
    ]
    .into_iter()
    .filter_map(|(field, is_changed)| is_changed.then_some(field))
    .collect();
    if changed_fields.is_empty() {
        change.mark_unchanged();
        return Ok(waiting);
    }
    let (organization_id, invitation_id) = (waiting.organization_id, waiting.invitation_id);
    db::invitation::set_options(
        change,
        organization_id,
        invitation_id,
        &form_id,
        &return_url,
    )
    .await?;
    change.audit(
        AuditEntry::of_resource(AuditAction::InvitationUpdated, waiting.account_id)
            .detail("invitation_id", invitation_id.to_string())
            .detail("changed_fields", changed_fields.join(",")),
    );
    read(change, organization_id, invitation_id).await
}

fn invitable(account: &Account) -> Result<Addressee<'_>, Error> {
    match account.state {
        AccountState::Closed => Err(Error::AccountClosed(account.account_id)),
        AccountState::Active => Err(Error::AccountAlreadyActive(account.account_id)),
        AccountState::Managed
        | AccountState::NotInvited
        | AccountState::Invited
        | AccountState::ShareRequested
        | AccountState::ShareDeclined => Addressee::new(
            account.account_id,
            &account.profile,
            account.last_invitation.as_ref(),
        )
        .ok_or(Error::AccountHasNoEmail(account.account_id)),
    }
}

/// Creates an invitation with its token, and the event that sends its email.
///
/// # Errors
/// If the portal is not trusted with tokens, or the return URL is on no allowed origin.
pub async fn create(
    context: &Context,
    change: &mut Change,
    organization: &Organization,
    addressee: &Addressee<'_>,
    kind: InvitationKind,
    options: &InvitationOptions,
) -> Result<Invitation, Error> {
    let draft = Draft::new(context, change, organization, addressee, kind, options)?;
    let times =
        db::invitation::create(change, organization.organization_id, &draft.invitation).await?;
    draft.announce(context, change, times)
}

/// Ends all open invitations of an account, which is locked, and stops their emails.
///
/// # Errors
/// If the database fails.
pub async fn end(change: &mut Change, account_id: Uuid, how: End) -> Result<Vec<Ended>, Error> {
    let organization_id = change.organization_id;
    let ended = db::invitation::end(change, organization_id, account_id, how).await?;
    for event in ended.iter().filter_map(events::email_to_stop) {
        change.emit(event);
    }
    Ok(ended)
}

/// Reads an invitation.
///
/// # Errors
/// If there is none in this organization.
pub async fn read(
    connection: &mut PgConnection,
    organization_id: Uuid,
    invitation_id: Uuid,
) -> Result<Invitation, Error> {
    db::invitation::get(connection, organization_id, invitation_id)
        .await?
        .ok_or(Error::InvitationNotFound(invitation_id))
}

/// Lists invitations, newest first: of one account or of all, in any of `states`, or in all if there are
/// none.
///
/// # Errors
/// If there is no such organization.
pub async fn list(
    connection: &mut PgConnection,
    organization_id: Uuid,
    account_id: Option<Uuid>,
    states: &[InvitationState],
    page: &Page,
) -> Result<Rows<Invitation>, Error> {
    organizations::read(connection, organization_id).await?;
    let (after, limit) = (page.after, page.limit());
    let rows = match account_id {
        Some(account_id) => {
            db::invitation::list_of_account(
                connection,
                organization_id,
                account_id,
                states,
                after,
                limit,
            )
            .await?
        }
        None => db::invitation::list(connection, organization_id, states, after, limit).await?,
    };
    Ok(rows)
}

/// Withdraws an invitation and every other open one of its account: their links are dead at once, an email not
/// sent yet is not sent. One that was withdrawn before stays as it is.
///
/// # Errors
/// If there is none in this organization, or it ended otherwise before.
pub async fn revoke(change: &mut Change, invitation_id: Uuid) -> Result<Invitation, Error> {
    let organization_id = change.organization_id;
    let account_id = read(change, organization_id, invitation_id)
        .await?
        .account_id;
    // Whoever activates or invites at this moment holds this lock.
    db::account::lock(change, organization_id, account_id).await?;
    let invitation = read(change, organization_id, invitation_id).await?;
    match invitation.state {
        InvitationState::Revoked => {
            change.mark_unchanged();
            return Ok(invitation);
        }
        state if state.has_ended() => {
            return Err(Error::InvitationEnded {
                invitation_id,
                state,
            });
        }
        _ => {}
    }
    let others: Vec<_> = end(change, account_id, End::Revoked)
        .await?
        .iter()
        .filter(|ended| ended.invitation_id != invitation_id)
        .map(|ended| ended.invitation_id.to_string())
        .collect();
    let mut entry = AuditEntry::of_resource(AuditAction::InvitationRevoked, account_id)
        .detail("invitation_id", invitation_id.to_string());
    if !others.is_empty() {
        entry = entry.detail("other_invitation_ids", others.join(","));
    }
    change.audit(entry);
    read(change, organization_id, invitation_id).await
}
