//! The only place where an error becomes a status.

use tonic::{Code, Status};
use usher_proto::account::v1::ErrorReason;
use usher_runtime::{
    database::{is_outage, without_data},
    error::RichError,
    fields::FieldViolation,
};

use super::encode;
use crate::error::{DeadToken, Error};

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match error {
            Error::Invalid(fields) => RichError::from(fields),
            Error::HolderUnderAge { .. } | Error::PasswordRefused(_) | Error::PageTokenMismatch => {
                invalid_argument(error)
            }
            Error::OrganizationNotFound(_)
            | Error::AccountNotFound(_)
            | Error::InvitationNotFound(_)
            | Error::TokenUnknown => not_found(error),
            Error::SlugTaken | Error::EmailInOrganization(_) | Error::RequestIdReused(_) => {
                already_exists(error)
            }
            Error::EmailOnPlatform(_)
            | Error::PossibleDuplicate(_)
            | Error::AccountHasNoEmail(_)
            | Error::AccountAlreadyActive(_)
            | Error::AccountClosed(_)
            | Error::EmailOwnedByClient(_)
            | Error::InvitationEnded { .. }
            | Error::TokenDead(_) => failed_precondition(error),
            Error::EtagMismatch
            | Error::ConcurrentUpdate
            | Error::CredentialsInvalid
            | Error::TooManyAttempts { .. } => try_otherwise(error),
            Error::Database(_) | Error::Internal(_) => fault(&error),
        }
        .into()
    }
}

fn invalid_argument(error: Error) -> RichError {
    let rich = |reason, field: &str, message: String| {
        RichError::new(Code::InvalidArgument, reason, format!("{field}: {message}"))
            .fields(vec![FieldViolation::new(field, message)])
    };
    match error {
        Error::HolderUnderAge { minimum_age } => rich(
            ErrorReason::HolderUnderAge,
            "account.birth_date",
            format!(
                "the holder of an account must be at least {minimum_age} years old; enter dependants as \
                 `members` of an adult's account"
            ),
        )
        .metadata("minimum_age", minimum_age),
        Error::PasswordRefused(why) => {
            rich(ErrorReason::PasswordRefused, "password", why.to_string())
        }
        Error::PageTokenMismatch => rich(
            ErrorReason::PageTokenMismatch,
            "page_token",
            "belongs to a list with another filter; start at the first page".to_owned(),
        ),
        other => fault(&other),
    }
}

fn not_found(error: Error) -> RichError {
    let rich = |reason, resource: &str, id: String, advice: &str| {
        RichError::new(
            Code::NotFound,
            reason,
            format!("no such {resource}: {advice}"),
        )
        .resource(resource, id, advice)
    };
    match error {
        Error::OrganizationNotFound(id) => rich(
            ErrorReason::OrganizationNotFound,
            "organization",
            id.to_string(),
            "check organization_id; ListOrganizations shows all",
        ),
        Error::AccountNotFound(id) => rich(
            ErrorReason::AccountNotFound,
            "account",
            id.to_string(),
            "check account_id and organization_id; ListAccounts shows all",
        ),
        Error::InvitationNotFound(id) => rich(
            ErrorReason::InvitationNotFound,
            "invitation",
            id.to_string(),
            "check invitation_id and organization_id; ListInvitations shows all",
        ),
        Error::TokenUnknown => RichError::new(
            Code::NotFound,
            ErrorReason::TokenUnknown,
            "no such token for this purpose; ask the client to open the link from the email again, whole",
        ),
        other => fault(&other),
    }
}

fn already_exists(error: Error) -> RichError {
    match error {
        Error::SlugTaken => RichError::new(
            Code::AlreadyExists,
            ErrorReason::SlugTaken,
            "organization.slug: belongs to another organization; choose another",
        )
        .fields(vec![FieldViolation::new(
            "organization.slug",
            "belongs to another organization; choose another",
        )]),
        Error::EmailInOrganization(account_id) => RichError::new(
            Code::AlreadyExists,
            ErrorReason::EmailInOrganization,
            "account.email: belongs to another account of this organization; open that one instead",
        )
        .metadata("account_id", account_id)
        .resource("account", account_id, "the account that has the email"),
        Error::RequestIdReused(request_id) => RichError::new(
            Code::AlreadyExists,
            ErrorReason::RequestIdReused,
            "request_id: was used for another request; make a new one",
        )
        .resource("request", request_id, "an earlier request of other content"),
        other => fault(&other),
    }
}

fn failed_precondition(error: Error) -> RichError {
    let rich = |reason, message: &str| RichError::new(Code::FailedPrecondition, reason, message);
    match error {
        Error::EmailOnPlatform(report) => rich(
            ErrorReason::EmailOnPlatform,
            "the email belongs to a Person elsewhere on the platform; repeat the call with \
             on_platform_match: PLATFORM_MATCH_POLICY_REQUEST_SHARE to ask them to share",
        )
        .detail("usher.account.v1.DuplicateReport", &encode::report(*report)),
        Error::PossibleDuplicate(report) => rich(
            ErrorReason::PossibleDuplicate,
            "accounts of similar name exist; compare them, and repeat the call with \
             duplicate_acknowledgement to go on all the same",
        )
        .metadata("acknowledgement", &report.acknowledgement)
        .detail("usher.account.v1.DuplicateReport", &encode::report(*report)),
        Error::AccountHasNoEmail(account_id) => rich(
            ErrorReason::AccountHasNoEmail,
            "the account has no email to invite; add one with UpdateAccount",
        )
        .metadata("account_id", account_id),
        Error::AccountAlreadyActive(account_id) => rich(
            ErrorReason::AccountAlreadyActive,
            "the client took the account over already; they can log in",
        )
        .metadata("account_id", account_id),
        Error::AccountClosed(account_id) => rich(
            ErrorReason::AccountClosed,
            "the account is closed; reopen it first",
        )
        .metadata("account_id", account_id),
        Error::EmailOwnedByClient(account_id) => rich(
            ErrorReason::EmailOwnedByClient,
            "the account is active and its email is the client's own; only the client can change it",
        )
        .metadata("account_id", account_id),
        Error::InvitationEnded {
            invitation_id,
            state,
        } => rich(
            ErrorReason::InvitationEnded,
            "the invitation has ended already; there is nothing to revoke",
        )
        .metadata("invitation_id", invitation_id)
        .metadata("state", state),
        Error::TokenDead(dead) => dead_token(dead),
        other => fault(&other),
    }
}

fn dead_token(dead: DeadToken) -> RichError {
    let (reason, message) = match dead {
        DeadToken::Expired => (
            ErrorReason::TokenExpired,
            "the link's time is over; offer the client a new one",
        ),
        DeadToken::Used => (
            ErrorReason::TokenUsed,
            "the link was used already; offer the client the login",
        ),
        DeadToken::Revoked => (
            ErrorReason::TokenRevoked,
            "the organization withdrew the invitation; the client may contact it",
        ),
        DeadToken::Superseded => (
            ErrorReason::TokenSuperseded,
            "a newer email holds the link that works; ask the client to open that one",
        ),
    };
    RichError::new(Code::FailedPrecondition, reason, message)
}

fn try_otherwise(error: Error) -> RichError {
    match error {
        Error::EtagMismatch => RichError::new(
            Code::Aborted,
            ErrorReason::EtagMismatch,
            "etag: it changed since it was read; read it again and repeat the change",
        ),
        Error::ConcurrentUpdate => RichError::new(
            Code::Aborted,
            ErrorReason::ConcurrentUpdate,
            "another call changed the same thing at the same moment; repeat the call",
        ),
        Error::CredentialsInvalid => RichError::new(
            Code::Unauthenticated,
            ErrorReason::CredentialsInvalid,
            "email and password do not belong together",
        ),
        Error::TooManyAttempts { retry_after } => RichError::new(
            Code::ResourceExhausted,
            ErrorReason::TooManyAttempts,
            "too many attempts; come back after the time in RetryInfo",
        )
        .retry_after(retry_after),
        other => fault(&other),
    }
}

/// What the caller cannot mend. Logged here, once, and told without a driver's words.
fn fault(error: &Error) -> RichError {
    let is_outage = matches!(error, Error::Database(error) if is_outage(error));
    if is_outage {
        tracing::warn!(error = %text_for_log(error), "the database does not answer");
        return RichError::new(
            Code::Unavailable,
            ErrorReason::DependencyUnavailable,
            "the database does not answer; repeat the call with the same request_id",
        )
        .retry_after(std::time::Duration::from_secs(1));
    }
    tracing::error!(error = %text_for_log(error), "internal error");
    RichError::fault()
}

fn text_for_log(error: &Error) -> String {
    match error {
        Error::Database(error) => without_data(error),
        other => other.to_string(),
    }
}
