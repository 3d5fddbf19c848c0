//! Why a call is refused or fails, in the words that callers read. `grpc/status.rs` adds code, reason and details.

use usher_runtime::{error::CommonError, fields::InvalidFields, languages::LANGUAGES};
use uuid::Uuid;

use crate::{domain::DeliveryState, render::RenderError};

/// Everything that can go wrong in a call. The text is the message of the status.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Fields of the request are malformed.
    #[error(transparent)]
    Invalid(#[from] InvalidFields),
    /// No such delivery in the organization.
    #[error("no such delivery: check delivery_id and organization_id; ListDeliveries shows all")]
    DeliveryNotFound(Uuid),
    /// No template of this kind, or none in this language.
    #[error(
        "no template of this kind in this language: check kind and locale; the languages are {}",
        LANGUAGES.join(", ")
    )]
    TemplateNotFound,
    /// The email is sent, or has ended in another way.
    #[error("the email was sent or has ended otherwise; there is nothing to cancel")]
    DeliveryEnded {
        /// The delivery.
        delivery_id: Uuid,
        /// Its state.
        state: DeliveryState,
    },
    /// The email has not failed, or its link can be sent no more.
    #[error("the email cannot be sent again: {why}")]
    DeliveryNotRetryable {
        /// The delivery.
        delivery_id: Uuid,
        /// Its state.
        state: DeliveryState,
        /// In words for staff.
        why: &'static str,
    },
    /// The email is with the relay at this moment.
    #[error(
        "the email is being handed over to the relay; read the delivery after the time in RetryInfo: it is sent, \
         or waits for another attempt and can be cancelled"
    )]
    DeliveryBeingSent(Uuid),
    /// What every call can fail with.
    #[error(transparent)]
    Common(#[from] CommonError),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Common(error.into())
    }
}

impl From<RenderError> for Error {
    fn from(error: RenderError) -> Self {
        match error {
            RenderError::Value { field, expected } => {
                InvalidFields::one(format!("values.{field}"), expected).into()
            }
            // A built-in template is at fault.
            RenderError::Mjml { .. }
            | RenderError::Translations { .. }
            | RenderError::Template(_) => {
                CommonError::Internal(format!("template: {error}")).into()
            }
        }
    }
}
