//! The duplicate check: the same for the question and for every change.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    context::Context,
    db,
    domain::duplicate::{self, Candidate, Profile},
    error::Error,
};

/// Most candidates that a report shows.
const SHOWN: usize = 50;
/// Most accounts of equal name, and of the same sound, that are compared.
const COMPARED: i64 = 200;

/// What is known of an email.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmailVerdict {
    /// No email to check.
    NotGiven,
    /// Free.
    Available,
    /// An account of this organization has it.
    InOrganization(Uuid),
    /// A Person elsewhere on the platform has proved it.
    OnPlatform,
}

/// What a check finds.
#[derive(Debug, Clone)]
pub struct Report {
    /// What is known of the email.
    pub email: EmailVerdict,
    /// Accounts of similar name, best score first.
    pub candidates: Vec<Candidate>,
    /// Whether there are more than are shown.
    pub more_candidates: bool,
    /// What to send back to go on in spite of the candidates; empty without any.
    pub acknowledgement: String,
}

/// Answers the question of staff, and changes nothing.
///
/// # Errors
/// If there is no such organization.
pub async fn check(
    context: &Context,
    organization_id: Uuid,
    profile: &Profile,
) -> Result<Report, Error> {
    let mut tx = context.begin(organization_id).await?;
    db::organization::get(&mut tx, organization_id)
        .await?
        .ok_or(Error::OrganizationNotFound(organization_id))?;
    report(&mut tx, organization_id, profile, None).await
}

/// Checks a profile inside a transaction. `except` is the account that is being changed.
///
/// # Errors
/// If the database fails.
pub async fn report(
    connection: &mut PgConnection,
    organization_id: Uuid,
    profile: &Profile,
    except: Option<Uuid>,
) -> Result<Report, Error> {
    let email = check_email(
        connection,
        organization_id,
        profile.email.as_deref(),
        except,
    )
    .await?;
    let namesakes =
        db::account::find_namesakes(connection, organization_id, &profile.name, COMPARED).await?;
    let mut candidates: Vec<Candidate> = namesakes
        .iter()
        .filter(|(account_id, _)| Some(*account_id) != except)
        .filter_map(|(account_id, existing)| duplicate::compare(profile, *account_id, existing))
        .collect();
    candidates.sort_by(|one, other| {
        other
            .score
            .total_cmp(&one.score)
            .then(one.account_id.cmp(&other.account_id))
    });
    let more_candidates = candidates.len() > SHOWN;
    candidates.truncate(SHOWN);
    Ok(Report {
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
