//! The duplicate check: the same for the question and for every change.

use sqlx::PgConnection;
use usher_runtime::audit::AuditEntry;
use uuid::Uuid;

use super::{accounts::Decisions, organizations};
use crate::{
    db,
    domain::{
        audit::AuditAction,
        duplicate::{self, DuplicateReport, DuplicateRules, EmailVerdict, Frequencies, Identity},
        state::InvitationKind,
    },
    error::Error,
};

/// Most candidates that a report shows: as many as fit into the details of an error, which stock clients limit.
const SHOWN: usize = 40;
/// Most accounts of equal name, and of the same sound, that are compared.
const COMPARED: i64 = 200;

/// Answers the question of staff, and changes nothing.
///
/// # Errors
/// If there is no such organization.
pub async fn check(
    connection: &mut PgConnection,
    organization_id: Uuid,
    identity: &Identity,
) -> Result<DuplicateReport, Error> {
    organizations::read(connection, organization_id).await?;
    report(connection, organization_id, identity, None).await
}

/// Refuses an email that is taken, and says what an invitation to it would ask.
///
/// # Errors
/// If an account of the organization has it, or a Person elsewhere whom nobody decided to ask.
pub fn refuse_taken_email(
    report: &DuplicateReport,
    decisions: &Decisions,
) -> Result<InvitationKind, Error> {
    match report.email {
        EmailVerdict::InOrganization(account_id) => Err(Error::EmailInOrganization(account_id)),
        EmailVerdict::OnPlatform if decisions.request_share => Ok(InvitationKind::ShareRequest),
        EmailVerdict::OnPlatform => Err(Error::EmailOnPlatform(Box::new(report.clone()))),
        EmailVerdict::NotGiven | EmailVerdict::Available => Ok(InvitationKind::Activation),
    }
}

/// Warns of similar names, unless the caller has seen exactly these candidates. The entry tells the audit log
/// which warning was ignored.
///
/// # Errors
/// If there are candidates that the caller did not acknowledge.
pub fn refuse_similar_names(
    report: &DuplicateReport,
    decisions: &Decisions,
    account_id: Uuid,
) -> Result<Option<AuditEntry>, Error> {
    if report.candidates.is_empty() {
        return Ok(None);
    }
    if report.acknowledgement != decisions.acknowledgement {
        return Err(Error::PossibleDuplicate(Box::new(report.clone())));
    }
    let ignored: Vec<String> = report
        .candidates
        .iter()
        .map(|candidate| candidate.account_id.to_string())
        .collect();
    let entry = AuditEntry::of_resource(AuditAction::DuplicateIgnored, account_id)
        .detail("account_ids", ignored.join(","))
        .detail("reason", &decisions.acknowledgement_reason);
    Ok(Some(entry))
}

/// Checks an identity inside a transaction. `except` is the account that is being changed.
///
/// # Errors
/// If the database fails.
pub async fn report(
    connection: &mut PgConnection,
    organization_id: Uuid,
    identity: &Identity,
    except: Option<Uuid>,
) -> Result<DuplicateReport, Error> {
    let email = check_email(
        connection,
        organization_id,
        identity.email.as_deref(),
        except,
    )
    .await?;
    let namesakes =
        db::account::find_namesakes(connection, organization_id, &identity.name, COMPARED).await?;
    let namesakes: Vec<_> = namesakes
        .into_iter()
        .filter(|(account_id, _)| Some(*account_id) != except)
        .collect();
    let mut candidates = duplicate::rank(
        identity,
        &namesakes,
        &Frequencies::default(),
        DuplicateRules::FRONT_DESK,
    );
    let more_candidates = candidates.len() > SHOWN;
    candidates.truncate(SHOWN);
    Ok(DuplicateReport {
        email,
        acknowledgement: duplicate::acknowledgement(organization_id, &candidates),
        candidates,
        more_candidates,
    })
}

async fn check_email(
    connection: &mut PgConnection,
    organization_id: Uuid,
    email: Option<&str>,
    except: Option<Uuid>,
) -> Result<EmailVerdict, Error> {
    let Some(email) = email else {
        return Ok(EmailVerdict::NotGiven);
    };
    match db::account::find_by_email(connection, organization_id, email).await? {
        Some(account_id) if Some(account_id) != except => {
            return Ok(EmailVerdict::InOrganization(account_id));
        }
        Some(_) | None => {}
    }
    if db::person::exists(connection, email).await? {
        Ok(EmailVerdict::OnPlatform)
    } else {
        Ok(EmailVerdict::Available)
    }
}
