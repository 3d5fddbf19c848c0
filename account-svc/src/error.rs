//! Why a use case refuses or fails, in the words that callers read. `grpc/status.rs` adds code, reason and
//! details.

use std::time::Duration;

use usher_runtime::{error::CommonError, fields::InvalidFields};
use uuid::Uuid;

use crate::domain::{
    duplicate::DuplicateReport,
    password::PasswordError,
    state::{InvitationState, TokenStatus},
};

/// Everything that can go wrong in account-svc. The text is the message of the status.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Fields of the request are malformed.
    #[error(transparent)]
    Invalid(#[from] InvalidFields),
    /// The holder is younger than the organization's minimum age.
    #[error(
        "account.birth_date: the holder of an account must be at least {minimum_age} years old; enter dependants \
         as `members` of an adult's account"
    )]
    HolderUnderAge {
        /// Least age in years.
        minimum_age: i32,
    },
    /// The password breaks a rule.
    #[error("password: {0}")]
    PasswordRefused(#[from] PasswordError),

    /// No such organization.
    #[error("no such organization: check organization_id; ListOrganizations shows all")]
    OrganizationNotFound(Uuid),
    /// No such account in the organization.
    #[error("no such account: check account_id and organization_id; ListAccounts shows all")]
    AccountNotFound(Uuid),
    /// No such invitation in the organization.
    #[error(
        "no such invitation: check invitation_id and organization_id; ListInvitations shows all"
    )]
    InvitationNotFound(Uuid),
    /// No such token, not for this purpose, or of another organization than the caller's.
    #[error(
        "no such token for this purpose; ask the client to open the link from the email again, whole"
    )]
    TokenUnknown,

    /// The slug belongs to another organization.
    #[error("organization.slug: belongs to another organization; choose another")]
    SlugTaken,
    /// An account of the organization has the email.
    #[error(
        "account.email: belongs to another account of this organization; open that one instead"
    )]
    EmailInOrganization(Uuid),
    /// Another account got the email while this one was closed.
    #[error(
        "the account's email belongs to another account of this organization by now; change the email of one of them \
         with UpdateAccount first"
    )]
    EmailTakenWhileClosed(Uuid),

    /// A Person elsewhere on the platform has the email.
    #[error(
        "the email belongs to a Person elsewhere on the platform; repeat the call with on_platform_match: \
         PLATFORM_MATCH_POLICY_REQUEST_SHARE to ask them to share"
    )]
    EmailOnPlatform(Box<DuplicateReport>),
    /// Accounts of similar name exist.
    #[error(
        "accounts that may be of the same client exist; compare them, and repeat the call with duplicate_acknowledgement to go \
         on all the same"
    )]
    PossibleDuplicate(Box<DuplicateReport>),
    /// The same, and the caller acknowledged others.
    #[error(
        "duplicate_acknowledgement does not cover all accounts that are shown now; compare them again and send the \
         acknowledgement of this answer"
    )]
    OtherDuplicates(Box<DuplicateReport>),
    /// There is nobody to invite.
    #[error("the account has no email to invite; add one with UpdateAccount")]
    AccountHasNoEmail(Uuid),
    /// The client took the account over already.
    #[error("the client took the account over already; they can log in")]
    AccountAlreadyActive(Uuid),
    /// The account is closed.
    #[error("the account is closed; open it with ReopenAccount first")]
    AccountClosed(Uuid),
    /// The email of an active account is the client's own.
    #[error(
        "the account is active and its email is the client's own; only the client can change it"
    )]
    EmailOwnedByClient(Uuid),
    /// The invitation has ended in another way.
    #[error("the invitation has ended already; there is nothing to revoke")]
    InvitationEnded {
        /// The invitation.
        invitation_id: Uuid,
        /// Its state.
        state: InvitationState,
    },
    /// The operator does not trust the organization's portal with tokens any more.
    #[error(
        "the organization's portal_url lies on no origin that the operator of this installation trusts with \
         tokens; change portal_url, or ask the operator to add its origin to PORTAL_ORIGINS"
    )]
    PortalNotTrusted,
    /// The token cannot be used any more.
    #[error("{}", dead_token(*.0))]
    TokenDead(TokenStatus),

    /// The resource changed since it was read: `account` or `organization`.
    #[error("{0}.etag: the {0} changed since it was read; read it again and repeat the change")]
    EtagMismatch(&'static str),

    /// Email and password do not belong together.
    #[error("email and password do not belong together")]
    CredentialsInvalid,
    /// Too many attempts.
    #[error("too many attempts; come back after the time in RetryInfo")]
    TooManyAttempts {
        /// When to come back.
        retry_after: Duration,
    },
    /// Too many passwords are being hashed.
    #[error("the service has as much work as it can take; repeat the call a little later")]
    Overloaded,

    /// What every call can fail with.
    #[error(transparent)]
    Common(#[from] CommonError),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Common(error.into())
    }
}

const fn dead_token(status: TokenStatus) -> &'static str {
    match status {
        TokenStatus::Expired => "the link's time is over; offer the client a new one",
        TokenStatus::Used => "the client took the account over already; offer the login",
        TokenStatus::Revoked => {
            "the organization withdrew the invitation; the client may contact it"
        }
        TokenStatus::Superseded => {
            "a newer email holds the link that works; ask the client to open that one"
        }
        // Never an error.
        TokenStatus::Valid => "the link can be used",
    }
}
