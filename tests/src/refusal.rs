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
    /// What it says to people.
    pub message: String,
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
        message: status.message().to_owned(),
        fields: violations
            .unwrap_or_default()
            .iter()
            .map(|violation| violation.field.clone())
            .collect(),
        details,
    }
}

/// Asserts that a call was refused with `code` and `reason`, and that it names exactly these faulty fields, in
/// any order. Returns what it says besides.
///
/// # Panics
/// If it was not; the text shows both in one line.
#[track_caller]
pub fn assert_refused<T: Debug>(
    result: Result<T, Status>,
    code: Code,
    reason: &str,
    fields: &[&str],
) -> Refusal {
    let refusal = refusal(result);
    let actual = line(refusal.code, &refusal.reason, &refusal.fields);
    let expected = line(code, reason, fields);
    assert!(
        actual == expected,
        "refused with {actual}, expected {expected}: {}",
        refusal.message
    );
    refusal
}

/// Asserts that a request was refused because of exactly these fields, in any order.
///
/// # Panics
/// If it was not.
#[track_caller]
pub fn assert_invalid<T: Debug>(result: Result<T, Status>, fields: &[&str]) -> Refusal {
    assert_refused(result, Code::InvalidArgument, "FIELD_INVALID", fields)
}

fn line(code: Code, reason: &str, fields: &[impl AsRef<str>]) -> String {
    let mut fields: Vec<&str> = fields.iter().map(AsRef::as_ref).collect();
    fields.sort_unstable();
    format!("{code:?} {reason} [{}]", fields.join(", "))
}
