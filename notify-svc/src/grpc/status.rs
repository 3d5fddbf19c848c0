//! The only place where an error becomes a status.

use std::time::Duration;

use tonic::{Code, Status};
use usher_proto::account::v1::ErrorReason;
use usher_runtime::error::RichError;

use crate::error::Error;

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let rich = match error {
            Error::Invalid(fields) => fields.into(),
            Error::Common(error) => error.into(),
            Error::DeliveryNotFound(id) => RichError::new(
                Code::NotFound,
                ErrorReason::DeliveryNotFound,
                message,
            )
            .resource("delivery", id, "not found"),
            Error::TemplateNotFound => {
                RichError::new(Code::NotFound, ErrorReason::TemplateNotFound, message)
            }
            Error::DeliveryEnded { delivery_id, state } => RichError::new(
                Code::FailedPrecondition,
                ErrorReason::DeliveryEnded,
                message,
            )
            .metadata("delivery_id", delivery_id)
            .metadata("state", state.as_str()),
            Error::DeliveryNotRetryable {
                delivery_id, state, ..
            } => RichError::new(
                Code::FailedPrecondition,
                ErrorReason::DeliveryNotRetryable,
                message,
            )
            .metadata("delivery_id", delivery_id)
            .metadata("state", state.as_str()),
            Error::DeliveryBeingSent(delivery_id) => {
                let reason = ErrorReason::DeliveryBeingSent;
                RichError::new(Code::FailedPrecondition, reason, message)
                    .metadata("delivery_id", delivery_id)
                    .retry_after(Duration::from_secs(1))
            }
        };
        rich.into()
    }
}
