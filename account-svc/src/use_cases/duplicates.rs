//! The duplicate check: the same for the question and for every change.

use sqlx::PgConnection;
use usher_runtime::audit::AuditEntry;
use uuid::Uuid;

use super::{accounts::Decisions, organizations};
use crate::{
    db::{
        self,
        account::{CheckData, EmailUse},
    },
    domain::{
        acknowledgement,
        audit::AuditAction,
        duplicate::{
            Candidate, Comparison, DuplicateReport, DuplicateRules, EmailVerdict, Fingerprint,
            Identity,
        },
        organization::{EntryMode, Organization},
        state::InvitationKind,
    },
    error::Error,
};

/// Most candidates that a report shows: as many as fit into the details of an error, which stock clients limit.
const SHOWN: usize = 40;

/// Answers the question of staff, and changes nothing. `except` is the account that they want to change.
///
/// # Errors
/// If there is no such organization.
pub async fn check(
    connection: &mut PgConnection,
    organization_id: Uuid,
    entry_mode: EntryMode,
    identity: &Identity,
    except: Option<Uuid>,
) -> Result<DuplicateReport, Error> {
    let organization = organizations::read(connection, organization_id).await?;
    let entry = (identity, &Fingerprint::new(identity));
    report(connection, &organization, entry_mode, entry, except).await
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

/// Warns of similar names, unless the caller has seen all these candidates. The entry tells the audit log
/// which warning was ignored.
///
/// # Errors
/// If there are candidates that the caller did not acknowledge.
pub fn refuse_possible_duplicates(
    organization_id: Uuid,
    report: &DuplicateReport,
    decisions: &Decisions,
    account_id: Uuid,
) -> Result<Option<AuditEntry>, Error> {
    if report.candidates.is_empty() {
        return Ok(None);
    }
    let candidates = report
        .candidates
        .iter()
        .map(|candidate| candidate.account_id);
    if !acknowledgement::covers(
        &decisions.acknowledgement,
        organization_id,
        candidates.clone(),
    ) {
        let report = Box::new(report.clone());
        return Err(if decisions.acknowledgement.is_empty() {
            Error::PossibleDuplicate(report)
        } else {
            Error::OtherDuplicates(report)
        });
    }
    let ignored: Vec<String> = candidates.map(|id| id.to_string()).collect();
    let entry = AuditEntry::of_resource(AuditAction::DuplicateIgnored, account_id)
        .detail("account_ids", ignored.join(","))
        .detail("reason", &decisions.acknowledgement_reason);
    Ok(Some(entry))
}

/// Checks an entry with its fingerprint inside a transaction. `except` is the account that is being changed.
///
/// # Errors
/// If the database fails.
pub async fn report(
    connection: &mut PgConnection,
    organization: &Organization,
    entry_mode: EntryMode,
    (identity, fingerprint): (&Identity, &Fingerprint),
    except: Option<Uuid>,
) -> Result<DuplicateReport, Error> {
    let organization_id = organization.organization_id;
    let email = identity.email.as_deref();
    let mut data =
        db::account::find_candidates(connection, organization_id, fingerprint, email).await?;
    data.candidates
        .retain(|(account_id, _)| Some(*account_id) != except);
    let email = match identity.email {
        Some(_) => verdict(data.email, except),
        None => EmailVerdict::NotGiven,
    };
    let rules = organization.profile.duplicate_rules(entry_mode);
    let mut candidates =
        rank_candidates(connection, organization_id, identity, data, rules).await?;
    let more_candidates = candidates.len() > SHOWN;
    candidates.truncate(SHOWN);
    let shown = candidates.iter().map(|candidate| candidate.account_id);
    Ok(DuplicateReport {
        email,
        acknowledgement: acknowledgement::of(organization_id, shown),
        candidates,
        more_candidates,
    })
}

/// Checks a new email of an account whose name is not compared.
///
/// # Errors
/// If the database fails.
pub async fn email_report(
    connection: &mut PgConnection,
    organization_id: Uuid,
    canonical_email: Option<&str>,
    account_id: Uuid,
) -> Result<DuplicateReport, Error> {
    let email = match canonical_email {
        Some(email) => {
            let found = db::account::find_email(connection, organization_id, email).await?;
            verdict(found, Some(account_id))
        }
        None => EmailVerdict::NotGiven,
    };
    Ok(DuplicateReport {
        email,
        acknowledgement: String::new(),
        candidates: Vec::new(),
        more_candidates: false,
    })
}

/// `except` is the account that is being changed.
fn verdict(email: EmailUse, except: Option<Uuid>) -> EmailVerdict {
    match email.account_id {
        Some(account_id) if Some(account_id) != except => EmailVerdict::InOrganization(account_id),
        _ if email.is_proven => EmailVerdict::OnPlatform,
        _ => EmailVerdict::Available,
    }
}

/// The candidates that are shown. Without the frequencies of their names, probabilities are too high: so only if any
/// would be shown, these are read, and most creates need no further statement.
async fn rank_candidates(
    connection: &mut PgConnection,
    organization_id: Uuid,
    identity: &Identity,
    data: CheckData,
    rules: DuplicateRules,
) -> Result<Vec<Candidate>, Error> {
    let CheckData {
        candidates,
        mut frequencies,
        ..
    } = data;
    let comparison = Comparison::new(identity, &candidates);
    let ranked = comparison.rank(&frequencies, rules);
    if ranked.is_empty() {
        return Ok(ranked);
    }
    let hashes = comparison.name_hashes();
    let read = db::name_frequency::read(connection, organization_id, &hashes).await?;
    frequencies.names.extend(read);
    Ok(comparison.rank(&frequencies, rules))
}
