//! The only place where an error becomes a gRPC status.

use std::time::Duration;

use tonic::{Code, Status};
use usher_proto::account::v1::ErrorReason;
use usher_runtime::{
    database::{is_outage, without_data},
    error::RichError,
};

use crate::error::Error;

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Fields(fields) => RichError::from(fields),
            Error::DeliveryNotFound(id) => RichError::new(
                Code::NotFound,
                ErrorReason::DeliveryNotFound,
                message,
            )
            .resource("usher.notify.v1.Delivery", id, "not found"),
            Error::TemplateNotFound => {
                RichError::new(Code::NotFound, ErrorReason::TemplateNotFound, message)
            }
            Error::Database(error) => database(&error),
            Error::Render(_) => {
                tracing::error!(error = message, "internal error");
                RichError::fault()
            }
        }
        .into()
    }
}

fn database(error: &sqlx::Error) -> RichError {
    if !is_outage(error) {
        tracing::error!(error = %without_data(error), "internal error");
        return RichError::fault();
    }
    tracing::warn!(error = %without_data(error), "the database does not answer");
    RichError::new(
        Code::Unavailable,
        ErrorReason::DependencyUnavailable,
        "the database does not answer; repeat the call a little later",
    )
    .retry_after(Duration::from_secs(1))
}
