//! Refused calls, as a program reads them.

#![expect(clippy::panic, reason = "tests say what went wrong by panicking")]

use std::fmt::Debug;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// What a refusal tells a program.
#[derive(Debug)]
pub struct Refusal {
    /// The status code.
    pub code: Code,
    /// The reason in its `ErrorInfo`.
    pub reason: String,
    /// The faulty fields in its `BadRequest`.
    pub fields: Vec<String>,
    /// Everything else.
    pub details: ErrorDetails,
}

/// Reads a refusal.
///
/// # Panics
/// If the call was not refused, or its error carries no `ErrorInfo` of the domain `usher`.
#[track_caller]
pub fn refusal<T: Debug>(result: Result<T, Status>) -> Refusal {
    let status = match result {
        Ok(response) => panic!("not refused: {response:?}"),
        Err(status) => status,
    };
    let details = status.get_error_details();
    let Some(info) = details.error_info() else {
        panic!("no ErrorInfo: {status:?}");
    };
    assert_eq!(info.domain, "usher", "{status:?}");
    let violations = details
        .bad_request()
        .map(|request| &request.field_violations[..]);
    Refusal {
        code: status.code(),
        reason: info.reason.clone(),
        fields: violations
            .unwrap_or_default()
            .iter()
            .map(|violation| violation.field.clone())
            .collect(),
        details,
    }
}

/// Asserts that a call was refused with `code` and `reason`, and returns the rest.
///
/// # Panics
/// If it was not.
#[track_caller]
pub fn assert_refused<T: Debug>(result: Result<T, Status>, code: Code, reason: &str) -> Refusal {
    let refusal = refusal(result);
    assert_eq!(
        (refusal.code, refusal.reason.as_str()),
        (code, reason),
        "{refusal:?}"
    );
    refusal
}

/// Asserts that a request was refused because of exactly these fields.
///
/// # Panics
/// If it was not.
#[track_caller]
pub fn assert_invalid<T: Debug>(result: Result<T, Status>, fields: &[&str]) -> Refusal {
    let refusal = assert_refused(result, Code::InvalidArgument, "FIELD_INVALID");
    assert_eq!(refusal.fields, fields, "{refusal:?}");
    refusal
}
