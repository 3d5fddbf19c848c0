//! Errors as callers see them: a gRPC code, a stable reason, and details that say what to do next.
//!
//! Follows AIP-193: every error carries a `google.rpc.ErrorInfo` of the domain `usher`. Errors travel in HTTP/2
//! headers, of which some clients accept 8 KiB in all, so their parts have limits.

mod common;

use std::{collections::HashMap, fmt::Display, time::Duration};

use prost::Message as _;
use prost_types::Any;
use tonic::{Code, Status};
use tonic_types::pb;
use usher_proto::account::v1::ErrorReason;

pub use self::common::CommonError;
use crate::{
    caller::NotGranted,
    database::{is_lock_timeout, is_outage, without_data},
    fields::FieldViolation,
    trace_context::current_trace_id,
};

/// The `domain` of every `ErrorInfo`.
pub const DOMAIN: &str = "usher";

/// Most faulty fields that an error names.
const MAX_VIOLATIONS: usize = 20;
/// Longest list of faulty fields, in bytes as encoded.
const MAX_VIOLATIONS_BYTES: usize = 2 * 1024;
/// Longest message, in bytes.
const MAX_MESSAGE_BYTES: usize = 512;
/// Longest single text in the details, in bytes.
const MAX_TEXT_BYTES: usize = 256;
/// Most bytes of facts for programs.
const MAX_METADATA_BYTES: usize = 1024;
/// Longest details, in bytes as encoded, the message included. In a header a third more.
const MAX_DETAILS_BYTES: usize = 4 * 1024;

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

    /// A failure of the database, which is logged here, and told without a driver's words. An outage, and a lock
    /// that was not free in time, say when to come back; anything else is a [`fault`](Self::fault).
    #[must_use]
    pub fn database(error: &sqlx::Error) -> Self {
        if !is_outage(error) {
            tracing::error!(error = %without_data(error), "internal error");
            return Self::fault();
        }
        let what = if is_lock_timeout(error) {
            "another call holds what this one needs"
        } else {
            "the database does not answer"
        };
        tracing::warn!(error = %without_data(error), "{what}");
        Self::new(
            Code::Unavailable,
            ErrorReason::DependencyUnavailable,
            format!("{what}; repeat the call a little later, a mutation with the same request_id"),
        )
        .retry_after(Duration::from_secs(1))
    }

    /// Adds a fact for programs.
    #[must_use]
    pub fn metadata(mut self, key: &str, value: impl Display) -> Self {
        self.metadata.insert(key.to_owned(), value.to_string());
        self
    }

    /// Names the fields that are at fault: the first 20, fewer if they are long. The message and the fact
    /// `more_violations` tell how many there are besides.
    #[must_use]
    pub fn fields(mut self, violations: Vec<FieldViolation>) -> Self {
        let count = violations.len();
        let mut bytes = 0;
        let field_violations: Vec<_> = violations
            .into_iter()
            .take(MAX_VIOLATIONS)
            .map(|violation| pb::bad_request::FieldViolation {
                field: cut(violation.field, MAX_TEXT_BYTES / 2),
                description: cut(violation.description, MAX_MESSAGE_BYTES),
                ..Default::default()
            })
            .take_while(|violation| {
                bytes += violation.encoded_len();
                bytes <= MAX_VIOLATIONS_BYTES
            })
            .collect();
        let more = count - field_violations.len();
        if more > 0 {
            let note = format!(" (and {more} more)");
            self.message = cut(self.message, MAX_MESSAGE_BYTES - note.len()) + &note;
            self = self.metadata("more_violations", more);
        }
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
                resource_name: cut(name.to_string(), MAX_TEXT_BYTES),
                owner: String::new(),
                description: cut(description.to_owned(), MAX_TEXT_BYTES),
            },
        )
    }

    /// Says when to come back.
    #[must_use]
    pub fn retry_after(self, delay: Duration) -> Self {
        let retry_delay = prost_types::Duration::try_from(delay).ok();
        self.detail("google.rpc.RetryInfo", &pb::RetryInfo { retry_delay })
    }

    /// Adds a typed detail of the message type `full_name`. If the details become longer than 4 KiB, those
    /// that were added last are left out; the fact `omitted_details` tells how many.
    #[must_use]
    pub fn detail(mut self, full_name: &str, message: &impl prost::Message) -> Self {
        self.details.push(any(full_name, message));
        self
    }
}

impl From<RichError> for Status {
    fn from(error: RichError) -> Self {
        let mut info = pb::ErrorInfo {
            reason: reason_name(error.reason).to_owned(),
            domain: DOMAIN.to_owned(),
            metadata: bounded(error.metadata),
        };
        let mut status = pb::Status {
            code: error.code as i32,
            message: cut(error.message, MAX_MESSAGE_BYTES),
            details: vec![any("google.rpc.ErrorInfo", &info)],
        };
        // What the fact about omitted details may add.
        let mut left = MAX_DETAILS_BYTES.saturating_sub(status.encoded_len() + 64);
        let mut omitted = 0;
        for detail in error.details {
            // With its tag and length.
            let length = detail.encoded_len() + 4;
            if length <= left {
                left -= length;
                status.details.push(detail);
            } else {
                omitted += 1;
            }
        }
        if omitted > 0 {
            let fact = ("omitted_details".to_owned(), omitted.to_string());
            info.metadata.extend([fact]);
            status.details[0] = any("google.rpc.ErrorInfo", &info);
        }
        let encoded = status.encode_to_vec();
        Self::with_details(error.code, status.message, encoded.into())
    }
}

fn any(full_name: &str, message: &impl prost::Message) -> Any {
    Any {
        type_url: format!("type.googleapis.com/{full_name}"),
        value: message.encode_to_vec(),
    }
}

/// `text`, or its beginning, at most `max_bytes` long.
fn cut(mut text: String, max_bytes: usize) -> String {
    const MORE: &str = "…";
    if text.len() > max_bytes {
        text.truncate(text.floor_char_boundary(max_bytes.saturating_sub(MORE.len())));
        text.push_str(MORE);
    }
    text
}

/// The facts, as far as they fit, short ones first.
fn bounded(metadata: HashMap<String, String>) -> HashMap<String, String> {
    let mut facts: Vec<_> = metadata
        .into_iter()
        .map(|(key, value)| (key, cut(value, MAX_TEXT_BYTES)))
        .collect();
    facts.sort_unstable_by_key(|(key, value)| key.len() + value.len());
    let mut bytes = 0;
    facts
        .into_iter()
        .take_while(|(key, value)| {
            bytes += key.len() + value.len() + 8;
            bytes <= MAX_METADATA_BYTES
        })
        .collect()
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

#[cfg(test)]
mod tests {
    use proptest::{collection, prelude::*};

    use super::*;

    /// Bytes of an error in HTTP/2 headers, as RFC 9113 (6.5.2) counts them.
    fn header_bytes(status: &Status) -> usize {
        let mut headers = http::HeaderMap::new();
        status.add_header(&mut headers).unwrap();
        headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 32)
            .sum()
    }

    fn info(status: &Status) -> pb::ErrorInfo {
        let details = pb::Status::decode(status.details()).unwrap().details;
        pb::ErrorInfo::decode(details[0].value.as_slice()).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn every_error_fits_into_the_headers_of_every_client(
            message in "\\PC{0,2000}",
            violations in collection::vec(("\\PC{0,400}", "\\PC{0,400}"), 0..60),
            metadata in collection::hash_map("[a-z_]{1,40}", "\\PC{0,600}", 0..20),
            details in collection::vec("\\PC{0,3000}", 0..4),
        ) {
            let mut error = RichError::new(Code::InvalidArgument, ErrorReason::FieldInvalid, message);
            for (key, value) in &metadata {
                error = error.metadata(key, value);
            }
            for detail in &details {
                error = error.detail("google.protobuf.StringValue", detail);
            }
            let violations = violations
                .into_iter()
                .map(|(field, description)| FieldViolation::new(field, description))
                .collect();
            let status = Status::from(error.fields(violations));
            // Together with what else stands in the headers of a response.
            prop_assert!(header_bytes(&status) <= 8 * 1024 - 512, "{}", header_bytes(&status));
            prop_assert_eq!(info(&status).reason, "FIELD_INVALID");
        }
    }

    #[test]
    fn more_faults_than_fit_are_counted() {
        let violations: Vec<_> = (0..60)
            .map(|index| FieldViolation::new(format!("paths[{index}]"), "unknown path"))
            .collect();
        let error = RichError::new(
            Code::InvalidArgument,
            ErrorReason::FieldInvalid,
            "x".repeat(1000),
        );
        let status = Status::from(error.fields(violations));
        assert!(
            status.message().ends_with("(and 40 more)"),
            "{}",
            status.message()
        );
        assert_eq!(info(&status).metadata["more_violations"], "40");
    }

    #[test]
    fn details_that_do_not_fit_are_counted() {
        let error = RichError::new(
            Code::FailedPrecondition,
            ErrorReason::PossibleDuplicate,
            "m",
        )
        .metadata("acknowledgement", "abc")
        .detail("google.protobuf.StringValue", &"y".repeat(5000))
        .retry_after(Duration::from_secs(1));
        let status = Status::from(error);
        let info = info(&status);
        assert_eq!(info.metadata["omitted_details"], "1");
        assert_eq!(info.metadata["acknowledgement"], "abc");
        let details = pb::Status::decode(status.details()).unwrap().details;
        assert_eq!(details.len(), 2);
    }
}
