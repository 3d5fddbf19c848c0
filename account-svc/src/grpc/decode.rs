//! From messages to types that cannot be wrong. Every fault of a request is named in one answer.

mod organization;
mod profile;

use usher_runtime::fields::{FieldParser, parse_uuid};
use uuid::Uuid;

pub(super) use self::{
    organization::organization_profile,
    profile::{identity, profile_change},
};
use crate::{error::Error, idempotency::RequestKey};

/// The key of a mutating call; `None` if the caller sent no `request_id`. `request` is the encoded request
/// without passwords.
pub(super) fn request_key(
    parser: &mut FieldParser,
    request_id: &str,
    method: &str,
    request: &[u8],
) -> Option<RequestKey> {
    if request_id.is_empty() {
        return None;
    }
    parser
        .take("request_id", parse_uuid(request_id))
        .map(|request_id| RequestKey::new(request_id, method, request))
}

/// The ids in these fields, all required.
pub(super) fn ids<const N: usize>(fields: [(&str, &str); N]) -> Result<[Uuid; N], Error> {
    let mut parser = FieldParser::default();
    let ids = fields.map(|(field, id)| parser.take(field, parse_uuid(id)).unwrap_or_default());
    parser.finish(())?;
    Ok(ids)
}

/// The version that an `etag` stands for; `None` if it is empty.
pub(super) fn etag(etag: &str) -> Result<Option<i64>, Error> {
    if etag.is_empty() {
        return Ok(None);
    }
    // Whatever is not an etag of ours is not the current one either.
    etag.trim_matches('"')
        .parse()
        .map(Some)
        .map_err(|_| Error::EtagMismatch)
}

/// The fields that an update names; each must be one of `accepted`.
pub(super) fn update_mask(
    parser: &mut FieldParser,
    mask: Option<prost_types::FieldMask>,
    accepted: &[&str],
) -> Vec<String> {
    let paths = mask.unwrap_or_default().paths;
    if paths.is_empty() {
        parser.refuse(
            "update_mask",
            format!(
                "required: name the fields to change, of {}",
                accepted.join(", ")
            ),
        );
    }
    for path in paths
        .iter()
        .filter(|path| !accepted.contains(&path.as_str()))
    {
        parser.refuse(
            "update_mask",
            format!(
                "{path:?} cannot be changed; accepted: {}",
                accepted.join(", ")
            ),
        );
    }
    paths
}

/// A value of an enum that was not made up. `0` stands for the default.
pub(super) fn known_enum<T: TryFrom<i32>>(
    parser: &mut FieldParser,
    field: &str,
    value: i32,
    accepted: &str,
) -> Option<T> {
    parser.take(
        field,
        T::try_from(value)
            .map_err(|_| format!("{value} is not a value of this enum; accepted: {accepted}")),
    )
}

/// Names of the states to filter by, without their prefix.
pub(super) fn states<T: TryFrom<i32>>(
    parser: &mut FieldParser,
    field: &str,
    states: &[i32],
    name: impl Fn(T) -> &'static str,
    prefix: &str,
) -> Vec<String> {
    let mut names = Vec::new();
    for (index, &state) in states.iter().enumerate() {
        let field = format!("{field}[{index}]");
        match T::try_from(state) {
            Ok(value) if state != 0 => {
                let name = name(value);
                names.push(name.strip_prefix(prefix).unwrap_or(name).to_owned());
            }
            _ => parser.refuse(field, format!("{state} is not a state to filter by")),
        }
    }
    names
}

/// The messages of a list, each parsed by `item`; more than `max` are refused.
pub(super) fn list<M, T>(
    parser: &mut FieldParser,
    field: &str,
    messages: Vec<M>,
    max: usize,
    item: impl Fn(&mut FieldParser, &str, M) -> Option<T>,
) -> Option<Vec<T>> {
    if messages.len() > max {
        parser.refuse(
            field,
            format!("has {} entries; at most {max} are accepted", messages.len()),
        );
        return None;
    }
    messages
        .into_iter()
        .enumerate()
        .map(|(index, message)| item(parser, &format!("{field}[{index}]"), message))
        .collect()
}
