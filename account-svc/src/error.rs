//! Why a use case refuses or fails.

use std::time::Duration;

use usher_runtime::fields::InvalidFields;
use uuid::Uuid;

use crate::{domain::password::PasswordError, duplicates::Report};

/// Everything that can go wrong in account-svc. `grpc/status.rs` says what callers see of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Fields of the request are malformed.
    #[error(transparent)]
    Invalid(#[from] InvalidFields),
    /// The holder is younger than the organization's minimum age.
    #[error("the holder is under {minimum_age}")]
    HolderUnderAge {
        /// Least age in years.
        minimum_age: i32,
    },
    /// The password breaks a rule.
    #[error("password refused: {0}")]
    PasswordRefused(#[from] PasswordError),
    /// The page token belongs to another list.
    #[error("page token of another query")]
    PageTokenMismatch,

    /// No such organization.
    #[error("no organization {0}")]
    OrganizationNotFound(Uuid),
    /// No such account in the organization.
    #[error("no account {0}")]
    AccountNotFound(Uuid),
    /// No such invitation in the organization.
    #[error("no invitation {0}")]
    InvitationNotFound(Uuid),
    /// No such token, or not for this purpose.
    #[error("unknown token")]
    TokenUnknown,

    /// The slug belongs to another organization.
    #[error("slug taken")]
    SlugTaken,
    /// An account of the organization has the email.
    #[error("the email belongs to account {0}")]
    EmailInOrganization(Uuid),
    /// The request id was used for another request.
    #[error("request id {0} was used for another request")]
    RequestIdReused(Uuid),

    /// A Person elsewhere on the platform has the email.
    #[error("the email belongs to a Person on the platform")]
    EmailOnPlatform(Box<Report>),
    /// Accounts of similar name exist.
    #[error("{} possible duplicates", .0.candidates.len())]
    PossibleDuplicate(Box<Report>),
    /// There is nobody to invite.
    #[error("account {0} has no email")]
    AccountHasNoEmail(Uuid),
    /// The client took the account over already.
    #[error("account {0} is active")]
    AccountAlreadyActive(Uuid),
    /// The account is closed.
    #[error("account {0} is closed")]
    AccountClosed(Uuid),
    /// The email of an active account is the client's own.
    #[error("the email of account {0} is the client's own")]
    EmailOwnedByClient(Uuid),
    /// The invitation has ended in another way.
    #[error("invitation {invitation_id} is {state}")]
    InvitationEnded {
        /// The invitation.
        invitation_id: Uuid,
        /// Its state.
        state: String,
    },
    /// The token cannot be used any more.
    #[error("token is {0:?}")]
    TokenDead(DeadToken),

    /// The resource changed since it was read.
    #[error("etag mismatch")]
    EtagMismatch,
    /// Another call changed the same thing at the same moment.
    #[error("concurrent update")]
    ConcurrentUpdate,

    /// Email and password do not belong together.
    #[error("credentials invalid")]
    CredentialsInvalid,
    /// Too many attempts.
    #[error("too many attempts")]
    TooManyAttempts {
        /// When to come back.
        retry_after: Duration,
    },

    /// The database does not answer, or answers with a fault.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// A fault of our own.
    #[error("internal: {0}")]
    Internal(String),
}

/// Why a token is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadToken {
    /// Its time is over.
    Expired,
    /// It was used.
    Used,
    /// The organization withdrew it.
    Revoked,
    /// A newer email holds the link that works.
    Superseded,
}
