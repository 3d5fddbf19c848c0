//! Accounts: creating, reading, changing.

use serde_json::json;
use sqlx::PgConnection;
use usher_runtime::{
    fields::{FieldViolation, InvalidFields},
    outbox::{self, OutboxEvent},
    page::Rows,
};
use uuid::Uuid;

use crate::{
    context::Context,
    db::{self, account::Account, invitation::End},
    domain::{
        birth_date,
        organization::Organization,
        profile::{Profile, ProfileChange},
    },
    duplicates::{self, EmailVerdict, Report},
    error::Error,
    events,
    idempotency::{self, RequestKey},
    invitations::{self, Extras, Kind},
};

/// What the caller decided about duplicates and the invitation.
#[derive(Debug, Clone, Default)]
pub struct Decisions {
    /// Send nothing now.
    pub hold_invitation: bool,
    /// Ask a Person who has the email elsewhere on the platform to share; otherwise refuse.
    pub request_share: bool,
    /// `acknowledgement` of the report that the caller ignores.
    pub acknowledgement: String,
    /// Why it is ignored, for the audit log.
    pub acknowledgement_reason: String,
    /// What staff add to the invitation.
    pub extras: Extras,
}

/// Creates an account for a client and, unless held back, invites them.
///
/// # Errors
/// If the profile breaks a rule of the organization, or looks like an account that exists.
pub async fn create(
    context: &Context,
    organization_id: Uuid,
    profile: &Profile,
    decisions: &Decisions,
    actor: &str,
    key: Option<&RequestKey>,
) -> Result<Account, Error> {
    let mut tx = context.begin(organization_id).await?;
    if let Some(answer) = idempotency::replay(&mut tx, organization_id, key).await? {
        return Ok(answer);
    }
    let organization = db::organization::get(&mut tx, organization_id)
        .await?
        .ok_or(Error::OrganizationNotFound(organization_id))?;
    check_birth_dates(&mut tx, &organization, profile).await?;
    let report = duplicates::report(&mut tx, organization_id, &profile.identity(), None).await?;
    let kind = check_email(&report, decisions)?;
    check_names(&report, decisions)?;

    let account_id = Uuid::now_v7();
    if !db::account::create(&mut tx, organization_id, account_id, profile).await? {
        // Somebody was faster since the check.
        let taken_by = email_taken_by(&mut tx, organization_id, profile).await?;
        return Err(Error::EmailInOrganization(taken_by));
    }
    let invitation = if decisions.hold_invitation {
        None
    } else {
        invite(
            context,
            &mut tx,
            &organization,
            account_id,
            profile,
            kind,
            decisions,
            actor,
        )
        .await?
    };
    let account = read(&mut tx, organization_id, account_id).await?;
    let mut events = vec![events::account_created(
        organization_id,
        account_id,
        &account.state,
        account.create_time,
    )];
    events.extend(invitation);
    outbox::add(&mut tx, events).await?;
    audit(
        &mut tx,
        &account,
        actor,
        "account.create",
        &report,
        decisions,
    )
    .await?;
    idempotency::keep(&mut tx, organization_id, key, &account).await?;
    tx.commit().await?;
    context.wake.notify();
    Ok(account)
}

/// Reads an account.
///
/// # Errors
/// If there is none in this organization.
pub async fn get(
    context: &Context,
    organization_id: Uuid,
    account_id: Uuid,
) -> Result<Account, Error> {
    let mut tx = context.begin(organization_id).await?;
    read(&mut tx, organization_id, account_id).await
}

/// Lists accounts, newest first: in any of `states`, or in all if there are none.
///
/// # Errors
/// If there is no such organization.
pub async fn list(
    context: &Context,
    organization_id: Uuid,
    states: &[String],
    after: Option<Uuid>,
    limit: i64,
) -> Result<Rows<Account>, Error> {
    let mut tx = context.begin(organization_id).await?;
    db::organization::get(&mut tx, organization_id)
        .await?
        .ok_or(Error::OrganizationNotFound(organization_id))?;
    Ok(db::account::list(&mut tx, organization_id, states, after, limit).await?)
}

/// A change of an account.
#[derive(Debug)]
pub struct Update {
    /// The account.
    pub account_id: Uuid,
    /// The version that the caller read, to be refused if somebody was faster.
    pub version: Option<i64>,
    /// The new values.
    pub change: ProfileChange,
    /// Names of the fields, for listeners.
    pub fields: Vec<String>,
    /// What the caller decided.
    pub decisions: Decisions,
}

/// Changes the profile of an account. A new email revokes the live invitation to the old one and, unless
/// held back, invites the client to the new one.
///
/// # Errors
/// If there is no such account, it changed meanwhile, or the change breaks a rule.
pub async fn update(
    context: &Context,
    organization_id: Uuid,
    update: Update,
    actor: &str,
    key: Option<&RequestKey>,
) -> Result<Account, Error> {
    let mut tx = context.begin(organization_id).await?;
    if let Some(answer) = idempotency::replay(&mut tx, organization_id, key).await? {
        return Ok(answer);
    }
    let organization = db::organization::get(&mut tx, organization_id)
        .await?
        .ok_or(Error::OrganizationNotFound(organization_id))?;
    let account = db::account::lock(&mut tx, organization_id, update.account_id)
        .await?
        .ok_or(Error::AccountNotFound(update.account_id))?;
    if update
        .version
        .is_some_and(|version| version != account.version)
    {
        return Err(Error::EtagMismatch);
    }
    let before = account.profile();
    let after = before.clone().changed(update.change);
    check_birth_dates(&mut tx, &organization, &after).await?;

    let decisions = &update.decisions;
    let identity = after.identity();
    let report = duplicates::report(
        &mut tx,
        organization_id,
        &identity,
        Some(account.account_id),
    )
    .await?;
    // What the change leaves alone was decided before.
    let email_changed = before.email != after.email;
    if email_changed && account.state == "ACTIVE" {
        return Err(Error::EmailOwnedByClient(account.account_id));
    }
    let kind = if email_changed {
        check_email(&report, decisions)?
    } else {
        Kind::Activation
    };
    if before.name != after.name {
        check_names(&report, decisions)?;
    }

    write(&mut tx, organization_id, account.account_id, &after).await?;
    let mut events = Vec::new();
    if email_changed {
        let id = account.account_id;
        events.extend(invitations::end(&mut tx, organization_id, id, End::Revoked).await?);
        if !decisions.hold_invitation && account.state != "CLOSED" {
            events.extend(
                invite(
                    context,
                    &mut tx,
                    &organization,
                    id,
                    &after,
                    kind,
                    decisions,
                    actor,
                )
                .await?,
            );
        }
    }
    let account = read(&mut tx, organization_id, account.account_id).await?;
    events.push(events::account_updated(
        organization_id,
        account.account_id,
        update.fields,
        account.update_time,
    ));
    outbox::add(&mut tx, events).await?;
    audit(
        &mut tx,
        &account,
        actor,
        "account.update",
        &report,
        decisions,
    )
    .await?;
    idempotency::keep(&mut tx, organization_id, key, &account).await?;
    tx.commit().await?;
    context.wake.notify();
    Ok(account)
}

async fn read(
    connection: &mut PgConnection,
    organization_id: Uuid,
    account_id: Uuid,
) -> Result<Account, Error> {
    db::account::get(connection, organization_id, account_id)
        .await?
        .ok_or(Error::AccountNotFound(account_id))
}

/// The holder must be old enough, and nobody is born tomorrow.
async fn check_birth_dates(
    connection: &mut PgConnection,
    organization: &Organization,
    profile: &Profile,
) -> Result<(), Error> {
    let members = profile.members.iter().map(|member| member.birth_date);
    if profile.birth_date.is_none() && members.clone().all(|date| date.is_none()) {
        return Ok(());
    }
    let today = db::clock::today(connection).await?;
    for (index, date) in members.enumerate() {
        if let Some(Err(error)) = date.map(|date| birth_date::age(date, today)) {
            let field = format!("account.members[{index}].birth_date");
            return Err(InvalidFields(vec![FieldViolation::new(field, error)]).into());
        }
    }
    let Some(date) = profile.birth_date else {
        return Ok(());
    };
    let age = birth_date::age(date, today)
        .map_err(|error| InvalidFields(vec![FieldViolation::new("account.birth_date", error)]))?;
    let minimum_age = organization.profile.minimum_age;
    if i64::from(age) < i64::from(minimum_age) {
        return Err(Error::HolderUnderAge { minimum_age });
    }
    Ok(())
}

/// Refuses an email that is taken, and says what an invitation to it would ask.
fn check_email(report: &Report, decisions: &Decisions) -> Result<Kind, Error> {
    match report.email {
        EmailVerdict::InOrganization(account_id) => Err(Error::EmailInOrganization(account_id)),
        EmailVerdict::OnPlatform if decisions.request_share => Ok(Kind::ShareRequest),
        EmailVerdict::OnPlatform => Err(Error::EmailOnPlatform(Box::new(report.clone()))),
        EmailVerdict::NotGiven | EmailVerdict::Available => Ok(Kind::Activation),
    }
}

/// Warns of similar names, unless the caller has seen exactly these candidates.
fn check_names(report: &Report, decisions: &Decisions) -> Result<(), Error> {
    if report.candidates.is_empty() || report.acknowledgement == decisions.acknowledgement {
        Ok(())
    } else {
        Err(Error::PossibleDuplicate(Box::new(report.clone())))
    }
}

async fn email_taken_by(
    connection: &mut PgConnection,
    organization_id: Uuid,
    profile: &Profile,
) -> Result<Uuid, Error> {
    let email = profile.email.as_ref().ok_or(Error::ConcurrentUpdate)?;
    db::account::find_by_email(connection, organization_id, email.canonical())
        .await?
        // Taken a moment ago and free again.
        .ok_or(Error::ConcurrentUpdate)
}

async fn write(
    connection: &mut PgConnection,
    organization_id: Uuid,
    account_id: Uuid,
    profile: &Profile,
) -> Result<(), Error> {
    match db::account::update(connection, organization_id, account_id, profile).await {
        // Somebody gave the email to another account since the check. The transaction is lost; a repeated
        // call will name that account.
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
            Err(Error::ConcurrentUpdate)
        }
        result => Ok(result?),
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "the two callers hold these apart, and a struct would only rename them"
)]
async fn invite(
    context: &Context,
    connection: &mut PgConnection,
    organization: &Organization,
    account_id: Uuid,
    profile: &Profile,
    kind: Kind,
    decisions: &Decisions,
    actor: &str,
) -> Result<Option<OutboxEvent>, Error> {
    let Some(email) = &profile.email else {
        return Ok(None);
    };
    let request = invitations::Request {
        organization,
        account_id,
        given_name: &profile.name.given,
        family_name: &profile.name.family,
        email,
        locale: &profile.locale,
        kind,
        extras: &decisions.extras,
        requested_by: actor,
    };
    let (_, event) = invitations::create(context, connection, &request).await?;
    Ok(Some(event))
}

async fn audit(
    connection: &mut PgConnection,
    account: &Account,
    actor: &str,
    action: &str,
    report: &Report,
    decisions: &Decisions,
) -> Result<(), Error> {
    let ignored: Vec<Uuid> = report
        .candidates
        .iter()
        .filter(|_| !decisions.acknowledgement.is_empty())
        .map(|candidate| candidate.account_id)
        .collect();
    let detail = if ignored.is_empty() {
        json!({ "state": account.state })
    } else {
        json!({
            "state": account.state,
            "ignored_duplicates": ignored,
            "reason": decisions.acknowledgement_reason,
        })
    };
    db::audit::add(
        connection,
        account.organization_id,
        Some(account.account_id),
        actor,
        action,
        detail,
    )
    .await?;
    Ok(())
}
