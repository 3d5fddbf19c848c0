//! Errors as callers see them: a gRPC code, a stable reason, and details that say what to do next.
//!
//! Follows AIP-193: every error carries a `google.rpc.ErrorInfo` of the domain `usher`.

use std::{collections::HashMap, fmt::Display, time::Duration};

use prost::Message as _;
use prost_types::Any;
use tonic::{Code, Status};
use tonic_types::pb;
use usher_proto::account::v1::ErrorReason;

use crate::{caller::NotGranted, fields::FieldViolation, trace_context::current_trace_id};

/// The `domain` of every `ErrorInfo`.
pub const DOMAIN: &str = "usher";

/// An error on its way to the caller.
#[derive(Debug)]
pub struct RichError {
    code: Code,
    reason: ErrorReason,
    message: String,
    metadata: HashMap<String, String>,
    details: Vec<Any>,
}

impl RichError {
    /// An error with its code, its stable reason, and a message for people that says what to do.
    pub fn new(code: Code, reason: ErrorReason, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            metadata: HashMap::new(),
            details: Vec::new(),
        }
    }

    /// A fault of the service, of which the caller learns nothing but where to look: log it before.
    #[must_use]
    pub fn fault() -> Self {
        let reason = ErrorReason::Internal;
        match current_trace_id() {
            Some(trace_id) => Self::new(
                Code::Internal,
                reason,
                "internal error; the service's log has the details under the trace_id in ErrorInfo",
            )
            .metadata("trace_id", trace_id),
            None => Self::new(
                Code::Internal,
                reason,
                "internal error; the service's log has the details",
            ),
        }
    }

    /// Adds a fact for programs.
    #[must_use]
    pub fn metadata(mut self, key: &str, value: impl Display) -> Self {
        self.metadata.insert(key.to_owned(), value.to_string());
        self
    }

    /// Names the fields that are at fault.
    #[must_use]
    pub fn fields(self, violations: Vec<FieldViolation>) -> Self {
        let field_violations = violations
            .into_iter()
            .map(|violation| pb::bad_request::FieldViolation {
                field: violation.field,
                description: violation.description,
                ..Default::default()
            })
            .collect();
        self.detail(
            "google.rpc.BadRequest",
            &pb::BadRequest { field_violations },
        )
    }

    /// Names the resource that stands in the way or is not there.
    #[must_use]
    pub fn resource(self, resource_type: &str, name: impl Display, description: &str) -> Self {
        self.detail(
            "google.rpc.ResourceInfo",
            &pb::ResourceInfo {
                resource_type: resource_type.to_owned(),
                resource_name: name.to_string(),
                owner: String::new(),
                description: description.to_owned(),
            },
        )
    }

    /// Says when to come back.
    #[must_use]
    pub fn retry_after(self, delay: Duration) -> Self {
        let retry_delay = prost_types::Duration::try_from(delay).ok();
        self.detail("google.rpc.RetryInfo", &pb::RetryInfo { retry_delay })
    }

    /// Adds a typed detail of the message type `full_name`.
    #[must_use]
    pub fn detail(mut self, full_name: &str, message: &impl prost::Message) -> Self {
        self.details.push(Any {
            type_url: format!("type.googleapis.com/{full_name}"),
            value: message.encode_to_vec(),
        });
        self
    }
}

impl From<RichError> for Status {
    fn from(error: RichError) -> Self {
        let info = pb::ErrorInfo {
            reason: reason_name(error.reason).to_owned(),
            domain: DOMAIN.to_owned(),
            metadata: error.metadata,
        };
        let mut details = vec![Any {
            type_url: "type.googleapis.com/google.rpc.ErrorInfo".to_owned(),
            value: info.encode_to_vec(),
        }];
        details.extend(error.details);
        let encoded = pb::Status {
            code: error.code as i32,
            message: error.message.clone(),
            details,
        }
        .encode_to_vec();
        Self::with_details(error.code, error.message, encoded.into())
    }
}

/// The text of a reason in `ErrorInfo`: its name without the prefix.
#[must_use]
pub fn reason_name(reason: ErrorReason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix("ERROR_REASON_").unwrap_or(name)
}

impl From<NotGranted> for RichError {
    fn from(error: NotGranted) -> Self {
        match error {
            NotGranted::Scope(scope) => Self::new(
                Code::PermissionDenied,
                ErrorReason::ScopeMissing,
                format!("{error}; ask whoever issues its identity to grant it"),
            )
            .metadata("scope", scope),
            NotGranted::NoOrganization => Self::new(
                Code::PermissionDenied,
                ErrorReason::OrganizationMismatch,
                format!("{error}; use one that does, or the scope for the whole platform"),
            ),
        }
    }
}
