//! The only place where an error becomes a gRPC status.

use std::time::Duration;

use tonic::{Code, Status};
use usher_proto::account::v1::ErrorReason;
use usher_runtime::{
    database::{is_outage, without_data},
    error::RichError,
    fields::{FieldViolation, InvalidFields},
    page::PageError,
};
use uuid::Uuid;

use crate::{domain::UnknownValue, render::RenderError};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Fields were refused.
    #[error(transparent)]
    Fields(#[from] InvalidFields),
    /// The page was refused.
    #[error("page: {0}")]
    Page(#[from] PageError),
    /// No such delivery in this organization.
    #[error("delivery {0} not found")]
    DeliveryNotFound(Uuid),
    /// No template in this language.
    #[error("template not found")]
    TemplateNotFound,
    /// The values of a preview were refused.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// A row that this version cannot read.
    #[error("a row holds an {0}")]
    Row(#[from] UnknownValue),
    /// The database failed.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match error {
            Error::Fields(fields) => RichError::from(fields),
            Error::Page(error) => return error.into(),
            Error::DeliveryNotFound(id) => RichError::new(
                Code::NotFound,
                ErrorReason::DeliveryNotFound,
                "no such delivery in this organization",
            )
            .resource("usher.notify.v1.Delivery", id, "not found"),
            Error::TemplateNotFound => RichError::new(
                Code::NotFound,
                ErrorReason::TemplateNotFound,
                "no template in this language; there are en and fr",
            ),
            Error::Render(RenderError::Value { field, expected }) => {
                InvalidFields(vec![FieldViolation::new(
                    format!("values.{field}"),
                    expected,
                )])
                .into()
            }
            Error::Render(error) => internal(&error),
            Error::Row(error) => internal(&error),
            Error::Database(error) => database(&error),
        }
        .into()
    }
}

/// The caller learns nothing of the fault but where to look.
fn internal(error: &dyn std::error::Error) -> RichError {
    tracing::error!(%error, "call failed");
    RichError::fault()
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
