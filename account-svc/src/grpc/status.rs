//! The only place where an error becomes a status.

use std::time::Duration;

use tonic::{Code, Status};
use usher_proto::account::v1::ErrorReason;
use usher_runtime::{error::RichError, fields::FieldViolation};

use super::encode;
use crate::{domain::state::TokenStatus, error::Error};

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let rich = match error {
            Error::Invalid(fields) => fields.into(),
            Error::Common(error) => error.into(),
            error => {
                let (code, reason) = code_and_reason(&error);
                add_details(RichError::new(code, reason, error.to_string()), error)
            }
        };
        rich.into()
    }
}

fn code_and_reason(error: &Error) -> (Code, ErrorReason) {
    use ErrorReason as Reason;
    match error {
        Error::Invalid(_) => (Code::InvalidArgument, Reason::FieldInvalid),
        Error::HolderUnderAge { .. } => (Code::InvalidArgument, Reason::HolderUnderAge),
        Error::PasswordRefused(_) => (Code::InvalidArgument, Reason::PasswordRefused),
        Error::OrganizationNotFound(_) => (Code::NotFound, Reason::OrganizationNotFound),
        Error::AccountNotFound(_) => (Code::NotFound, Reason::AccountNotFound),
        Error::InvitationNotFound(_) => (Code::NotFound, Reason::InvitationNotFound),
        Error::TokenUnknown => (Code::NotFound, Reason::TokenUnknown),
        Error::SlugTaken => (Code::AlreadyExists, Reason::SlugTaken),
        Error::EmailInOrganization(_) | Error::EmailTakenWhileClosed(_) => {
            (Code::AlreadyExists, Reason::EmailInOrganization)
        }
        Error::EmailOnPlatform(_) => (Code::FailedPrecondition, Reason::EmailOnPlatform),
        Error::PossibleDuplicate(_) | Error::OtherDuplicates(_) => {
            (Code::FailedPrecondition, Reason::PossibleDuplicate)
        }
        Error::AccountHasNoEmail(_) => (Code::FailedPrecondition, Reason::AccountHasNoEmail),
        Error::AccountAlreadyActive(_) => (Code::FailedPrecondition, Reason::AccountAlreadyActive),
        Error::AccountClosed(_) => (Code::FailedPrecondition, Reason::AccountClosed),
        Error::EmailOwnedByClient(_) => (Code::FailedPrecondition, Reason::EmailOwnedByClient),
        Error::InvitationEnded { .. } => (Code::FailedPrecondition, Reason::InvitationEnded),
        Error::PortalNotTrusted => (Code::FailedPrecondition, Reason::PortalNotTrusted),
        Error::TokenDead(TokenStatus::Expired) => (Code::FailedPrecondition, Reason::TokenExpired),
        Error::TokenDead(TokenStatus::Used) => (Code::FailedPrecondition, Reason::TokenUsed),
        Error::TokenDead(TokenStatus::Revoked) => (Code::FailedPrecondition, Reason::TokenRevoked),
        Error::TokenDead(TokenStatus::Superseded) => {
            (Code::FailedPrecondition, Reason::TokenSuperseded)
        }
        Error::EtagMismatch(_) => (Code::Aborted, Reason::EtagMismatch),
        Error::CredentialsInvalid => (Code::Unauthenticated, Reason::CredentialsInvalid),
        Error::TooManyAttempts { .. } => (Code::ResourceExhausted, Reason::TooManyAttempts),
        Error::Overloaded => (Code::Unavailable, Reason::Overloaded),
        Error::TokenDead(TokenStatus::Valid) | Error::Common(_) => {
            (Code::Internal, Reason::Internal)
        }
    }
}

fn add_details(rich: RichError, error: Error) -> RichError {
    match error {
        Error::HolderUnderAge { minimum_age } => {
            rich.metadata("minimum_age", minimum_age)
                .fields(vec![FieldViolation::new(
                    "account.birth_date",
                    format!("the holder must be at least {minimum_age} years old"),
                )])
        }
        Error::PasswordRefused(why) => rich.fields(vec![FieldViolation::new("password", why)]),
        Error::OrganizationNotFound(id) => rich.resource("organization", id, "not found"),
        Error::AccountNotFound(id) => rich.resource("account", id, "not found"),
        Error::InvitationNotFound(id) => rich.resource("invitation", id, "not found"),
        Error::SlugTaken => rich.fields(vec![FieldViolation::new(
            "organization.slug",
            "belongs to another organization",
        )]),
        Error::EmailInOrganization(account_id) | Error::EmailTakenWhileClosed(account_id) => rich
            .metadata("account_id", account_id)
            .resource("account", account_id, "the account that has the email"),
        Error::EmailOnPlatform(report) => rich.detail(
            "usher.account.v1.DuplicateReport",
            &encode::warning(&report),
        ),
        Error::PossibleDuplicate(report) | Error::OtherDuplicates(report) => rich
            .metadata("acknowledgement", &report.acknowledgement)
            .detail(
                "usher.account.v1.DuplicateReport",
                &encode::warning(&report),
            ),
        Error::AccountHasNoEmail(account_id)
        | Error::AccountAlreadyActive(account_id)
        | Error::AccountClosed(account_id)
        | Error::EmailOwnedByClient(account_id) => rich.metadata("account_id", account_id),
        Error::InvitationEnded {
            invitation_id,
            state,
        } => rich
            .metadata("invitation_id", invitation_id)
            .metadata("state", state.as_str()),
        Error::TooManyAttempts { retry_after } => rich.retry_after(retry_after),
        Error::Overloaded => rich.retry_after(Duration::from_secs(1)),
        Error::TokenUnknown
        | Error::PortalNotTrusted
        | Error::TokenDead(_)
        | Error::EtagMismatch(_)
        | Error::CredentialsInvalid
        | Error::Invalid(_)
        | Error::Common(_) => rich,
    }
}
