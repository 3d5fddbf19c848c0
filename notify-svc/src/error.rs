//! Why a call fails, in the words that callers read. `grpc/status.rs` adds code, reason and details.

use usher_runtime::{fields::InvalidFields, languages::LANGUAGES};
use uuid::Uuid;

use crate::render::RenderError;

/// Everything that can go wrong in a call. The text is the message of the status, but for the last two, of
/// which callers learn nothing but where to look.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Fields were refused.
    #[error(transparent)]
    Fields(#[from] InvalidFields),
    /// No such delivery in this organization.
    #[error("no such delivery: check delivery_id and organization_id; ListDeliveries shows all")]
    DeliveryNotFound(Uuid),
    /// No template of this kind, or none in this language.
    #[error(
        "no template of this kind in this language: check kind and locale; the languages are {}",
        LANGUAGES.join(", ")
    )]
    TemplateNotFound,
    /// A built-in template is at fault.
    #[error("template: {0}")]
    Render(RenderError),
    /// The database failed.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
}

impl From<RenderError> for Error {
    fn from(error: RenderError) -> Self {
        match error {
            RenderError::Value { field, expected } => {
                InvalidFields::one(format!("values.{field}"), expected).into()
            }
            RenderError::Mjml { .. }
            | RenderError::Translations { .. }
            | RenderError::Template(_) => Self::Render(error),
        }
    }
}
