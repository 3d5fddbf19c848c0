//! Parses the fields of a request, and names every faulty one in one answer.

use std::fmt::Display;

use prost_types::FieldMask;
use tonic::{Code, Status};
use usher_proto::account::v1::ErrorReason;
use uuid::Uuid;

use crate::error::RichError;

/// Most unknown paths of an update mask that an error repeats.
const MAX_NAMED_PATHS: usize = 3;

/// One field of a request and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// Path of the field in the request, for example `account.birth_date`.
    pub field: String,
    /// What is wrong and what is accepted.
    pub description: String,
    /// Whether the field is part of the contract, and only this version does not serve it.
    is_unserved: bool,
}

impl FieldViolation {
    /// A violation of `field`.
    pub fn new(field: impl Into<String>, description: impl Display) -> Self {
        Self {
            field: field.into(),
            description: description.to_string(),
            is_unserved: false,
        }
    }
}

/// The fields of a request that were refused, all in one answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} invalid", .0.iter().map(|violation| violation.field.as_str()).collect::<Vec<_>>().join(", "))]
pub struct InvalidFields(pub Vec<FieldViolation>);

impl InvalidFields {
    /// One field that was refused.
    pub fn one(field: impl Into<String>, description: impl Display) -> Self {
        Self(vec![FieldViolation::new(field, description)])
    }
}

impl From<InvalidFields> for RichError {
    fn from(InvalidFields(violations): InvalidFields) -> Self {
        let message = violations
            .iter()
            .map(|violation| format!("{}: {}", violation.field, violation.description))
            .collect::<Vec<_>>()
            .join("; ");
        let (code, reason) =
            if violations.is_empty() || violations.iter().any(|violation| !violation.is_unserved) {
                (Code::InvalidArgument, ErrorReason::FieldInvalid)
            } else {
                (Code::Unimplemented, ErrorReason::NotImplemented)
            };
        Self::new(code, reason, message).fields(violations)
    }
}

impl From<InvalidFields> for Status {
    fn from(fields: InvalidFields) -> Self {
        RichError::from(fields).into()
    }
}

/// Parses the fields of one request and collects what is wrong with them, so that a caller learns of all
/// faults at once.
#[derive(Debug, Default)]
pub struct FieldParser {
    violations: Vec<FieldViolation>,
}

impl FieldParser {
    /// Takes the value of `field`, or notes why it was refused.
    pub fn take<T, E: Display>(&mut self, field: &str, parsed: Result<T, E>) -> Option<T> {
        parsed.map_err(|error| self.refuse(field, error)).ok()
    }

    /// Notes that `field` is refused.
    pub fn refuse(&mut self, field: impl Into<String>, description: impl Display) {
        self.violations
            .push(FieldViolation::new(field, description));
    }

    /// Notes that this version does not serve `field`. A request without other faults is refused with
    /// `NOT_IMPLEMENTED`.
    pub fn refuse_unserved(&mut self, field: impl Into<String>) {
        self.violations.push(FieldViolation {
            is_unserved: true,
            ..FieldViolation::new(field, "is not served by this version; leave it out")
        });
    }

    /// A value of an enum that the contract names. `0` stands for the default of the field.
    pub fn known_enum<T: TryFrom<i32>>(
        &mut self,
        field: &str,
        value: i32,
        accepted: &str,
    ) -> Option<T> {
        self.take(
            field,
            T::try_from(value)
                .map_err(|_| format!("{value} is not a value of this enum; accepted: {accepted}")),
        )
    }

    /// The values of a filter, each parsed by `item`; more than `max` are refused, and none is given twice.
    pub fn set<M, T: PartialEq>(
        &mut self,
        field: &str,
        values: Vec<M>,
        max: usize,
        item: impl Fn(M) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let parsed = self.list(field, values, max, |parser, field, value| {
            parser.take(field, item(value))
        })?;
        let mut distinct = Vec::with_capacity(parsed.len());
        for value in parsed {
            if !distinct.contains(&value) {
                distinct.push(value);
            }
        }
        Some(distinct)
    }

    /// The messages of a list, each parsed by `item`; more than `max` are refused.
    pub fn list<M, T>(
        &mut self,
        field: &str,
        messages: Vec<M>,
        max: usize,
        item: impl Fn(&mut Self, &str, M) -> Option<T>,
    ) -> Option<Vec<T>> {
        if messages.len() > max {
            self.refuse(
                field,
                format!("has {} entries; at most {max} are accepted", messages.len()),
            );
            return None;
        }
        // Each is parsed, also after one that is faulty.
        let items: Vec<Option<T>> = messages
            .into_iter()
            .enumerate()
            .map(|(index, message)| item(self, &format!("{field}[{index}]"), message))
            .collect();
        items.into_iter().collect()
    }

    /// The fields that an update names in its field `update_mask`, each once; every one must be one of
    /// `accepted`.
    pub fn update_mask(&mut self, mask: Option<FieldMask>, accepted: &[&str]) -> Vec<String> {
        let paths = mask.unwrap_or_default().paths;
        if paths.is_empty() {
            self.refuse(
                "update_mask",
                format!(
                    "required: name the fields to change, of {}",
                    accepted.join(", ")
                ),
            );
        }
        let (mut known, unknown): (Vec<_>, Vec<_>) = paths
            .into_iter()
            .partition(|path| accepted.contains(&path.as_str()));
        if !unknown.is_empty() {
            self.refuse(
                "update_mask",
                format!(
                    "{} cannot be changed; accepted: {}",
                    named(&unknown),
                    accepted.join(", ")
                ),
            );
        }
        known.sort_unstable();
        known.dedup();
        known
    }

    /// Ends the parsing with the values that [`Self::take`] gave for the fields, a tuple of options.
    ///
    /// # Errors
    /// If any field was refused.
    pub fn finish<T: Parsed>(self, values: T) -> Result<T::Values, InvalidFields> {
        match values.values() {
            Some(values) if self.violations.is_empty() => Ok(values),
            _ => Err(InvalidFields(self.violations)),
        }
    }
}

/// Names the first paths of a mask. One that does not look like a path is only counted: it may hold anything and
/// be of any length.
fn named(paths: &[String]) -> String {
    let mut names: Vec<String> = paths
        .iter()
        .filter(|path| path.len() <= 64 && path.bytes().all(is_of_a_path))
        .take(MAX_NAMED_PATHS)
        .map(|path| format!("`{path}`"))
        .collect();
    match paths.len() - names.len() {
        0 => {}
        1 => names.push("1 other path".to_owned()),
        more => names.push(format!("{more} other paths")),
    }
    names.join(", ")
}

fn is_of_a_path(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_.*".contains(&byte)
}

/// Parsed fields: a tuple of options, of which each is `None` if its field was refused.
pub trait Parsed {
    /// The values.
    type Values;

    /// The values, if there are all of them.
    fn values(self) -> Option<Self::Values>;
}

macro_rules! parsed_tuples {
    ($(($($name:ident),*))*) => {$(
        impl<$($name),*> Parsed for ($(Option<$name>,)*) {
            type Values = ($($name,)*);

            #[expect(non_snake_case, reason = "the names of the types serve for the values")]
            fn values(self) -> Option<Self::Values> {
                let ($($name,)*) = self;
                Some(($($name?,)*))
            }
        }
    )*};
}

parsed_tuples! {
    (A) (A, B) (A, B, C) (A, B, C, D) (A, B, C, D, E) (A, B, C, D, E, F)
}

impl Parsed for () {
    type Values = ();

    fn values(self) -> Option<()> {
        Some(())
    }
}

/// Parses a required UUID, for use with [`FieldParser::take`].
///
/// # Errors
/// Says what is accepted.
pub fn parse_uuid(value: &str) -> Result<Uuid, &'static str> {
    if value.is_empty() {
        return Err("required: a UUID");
    }
    // The parser also takes forms with braces or without hyphens; the contract has one.
    if value.len() != 36 {
        return Err("not a UUID");
    }
    Uuid::try_parse(value).map_err(|_| "not a UUID")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_faults_stand_in_one_answer() {
        let mut fields = FieldParser::default();
        let one = fields.take("one", parse_uuid(""));
        let two = fields.take("two", Ok::<_, String>(2));
        fields.refuse("three", "no");
        let InvalidFields(violations) = fields.finish((one, two)).unwrap_err();
        let named: Vec<_> = violations
            .iter()
            .map(|violation| violation.field.as_str())
            .collect();
        assert_eq!(named, ["one", "three"]);
    }

    fn mask(paths: &[&str]) -> FieldMask {
        FieldMask {
            paths: paths.iter().map(|&path| path.to_owned()).collect(),
        }
    }

    #[test]
    fn a_mask_names_each_field_once() {
        let mut fields = FieldParser::default();
        assert_eq!(
            fields.update_mask(Some(mask(&["b", "a", "b"])), &["a", "b", "c"]),
            ["a", "b"]
        );
        assert_eq!(fields.finish(()), Ok(()));
    }

    #[test]
    fn paths_that_cannot_be_changed_are_named_and_others_counted() {
        let refused = |paths: &[&str]| {
            let mut fields = FieldParser::default();
            fields.update_mask(Some(mask(paths)), &["a", "b"]);
            let InvalidFields(violations) = fields.finish(()).unwrap_err();
            assert_eq!(violations.len(), 1);
            assert_eq!(violations[0].field, "update_mask");
            violations[0].description.clone()
        };
        assert_eq!(
            refused(&["a", "state"]),
            "`state` cannot be changed; accepted: a, b"
        );
        assert_eq!(
            refused(&["not a path"]),
            "1 other path cannot be changed; accepted: a, b"
        );
        assert_eq!(
            refused(&["c", "d.e", &"x".repeat(65), "*", "ann@example.org"]),
            "`c`, `d.e`, `*`, 2 other paths cannot be changed; accepted: a, b"
        );
        assert_eq!(refused(&[]), "required: name the fields to change, of a, b");
    }
}
