//! What any call can fail with, whatever it asks for. The error type of each service converts from it.

use std::time::Duration;

use tonic::{Code, Status};
use usher_proto::account::v1::ErrorReason;
use uuid::Uuid;

use super::RichError;

/// Why a call fails for reasons that have nothing to do with what it asks for. The text is the message of the
/// status, but for the last two, of which callers learn nothing but where to look.
#[derive(Debug, thiserror::Error)]
pub enum CommonError {
    /// The request id was used for another request.
    #[error("request_id: was used for another request; make a new one")]
    RequestIdReused(Uuid),
    /// Another call changed the same thing at the same moment.
    #[error("another call changed the same thing at the same moment; repeat the call")]
    ConcurrentUpdate,
    /// The calls of the organization use as many connections to the database as those of one may.
    #[error(
        "the organization has as many calls under way as it may; repeat the call a little later"
    )]
    Overloaded,
    /// The database does not answer, or answers with a fault.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// A fault of the service. The text holds no personal data.
    #[error("internal: {0}")]
    Internal(String),
}

impl From<CommonError> for RichError {
    fn from(error: CommonError) -> Self {
        let message = error.to_string();
        match error {
            CommonError::RequestIdReused(request_id) => Self::new(
                Code::AlreadyExists,
                ErrorReason::RequestIdReused,
                message,
            )
            .resource("request", request_id, "an earlier request of other content"),
            CommonError::ConcurrentUpdate => {
                Self::new(Code::Aborted, ErrorReason::ConcurrentUpdate, message)
            }
            CommonError::Overloaded => {
                Self::new(Code::Unavailable, ErrorReason::Overloaded, message)
                    .retry_after(Duration::from_secs(1))
            }
            CommonError::Database(error) => Self::database(&error),
            CommonError::Internal(error) => {
                tracing::error!(error, "internal error");
                Self::fault()
            }
        }
    }
}

impl From<CommonError> for Status {
    fn from(error: CommonError) -> Self {
        RichError::from(error).into()
    }
}
