//! Bearer tokens: JSON Web Tokens (RFC 7519) as access tokens (RFC 9068), in the header `authorization` (RFC 6750).

use std::collections::BTreeSet;

use http::{HeaderMap, header::AUTHORIZATION};
use jsonwebtoken::{decode, decode_header, errors::ErrorKind};
use serde::Deserialize;
use uuid::Uuid;

use super::{Refusal, jwks::Keys};
use crate::{
    caller::{Caller, Grants, parse_subject},
    fields::parse_uuid,
};

/// Longest token that is looked at, in bytes.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// What a token says about its caller. Issuer, audience and times are checked by the library.
#[derive(Deserialize)]
struct Claims {
    /// One string (RFC 7519, section 4.1.1): the library, which refuses a token without it, takes a list too.
    #[serde(rename = "iss")]
    _issuer: Option<String>,
    sub: String,
    /// Separated by spaces (RFC 8693, section 4.2).
    #[serde(default)]
    scope: String,
    #[serde(default)]
    organization_id: Option<String>,
}

/// The caller whose token the headers carry.
pub(super) async fn caller(keys: &Keys, headers: &HeaderMap) -> Result<Caller, Refusal> {
    let token = bearer(headers)?;
    let key_id = key_id(token)?;
    let key = keys.find(&key_id).await.ok_or(Refusal("unknown_key"))?;
    let claims: Claims = decode(token, &key.key, &key.validation)
        .map_err(|error| Refusal(cause(error.kind())))?
        .claims;
    let subject = parse_subject(&claims.sub).map_err(|_| Refusal("subject"))?;
    let organization_id = claims
        .organization_id
        .map(|id| parse_uuid(&id))
        .transpose()
        .map_err(|_| Refusal("organization"))?;
    // To requests it means that they name no organization.
    if organization_id == Some(Uuid::nil()) {
        return Err(Refusal("organization"));
    }
    let scopes: BTreeSet<String> = claims
        .scope
        .split(' ')
        .filter(|scope| !scope.is_empty())
        .map(str::to_owned)
        .collect();
    Ok(Caller {
        subject: subject.to_owned(),
        organization_id,
        grants: Grants::Scopes(scopes),
    })
}

fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Refusal("no_token"))?;
    // Two headers could be read differently by a proxy and by us.
    if values.next().is_some() {
        return Err(Refusal("malformed"));
    }
    let value = value.to_str().map_err(|_| Refusal("malformed"))?;
    let (scheme, token) = value.split_once(' ').ok_or(Refusal("no_token"))?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Refusal("no_token"));
    }
    if token.len() > MAX_TOKEN_BYTES {
        return Err(Refusal("too_long"));
    }
    Ok(token)
}

/// Checks what the library leaves to us in the header of a token; says which key has signed it.
fn key_id(token: &str) -> Result<String, Refusal> {
    // Fails for `none` and other algorithms that the library does not know.
    let header = decode_header(token).map_err(|_| Refusal("malformed"))?;
    // An extension that has to be understood (RFC 7515, section 4.1.11); none is.
    if header.crit.is_some() {
        return Err(Refusal("critical_extension"));
    }
    if let Some(typ) = header.typ {
        let typ = typ.to_ascii_lowercase();
        let typ = typ.strip_prefix("application/").unwrap_or(&typ);
        // What is signed for another purpose, as an ID token or a logout token, may have another type.
        if typ != "jwt" && typ != "at+jwt" {
            return Err(Refusal("type"));
        }
    }
    header.kid.ok_or(Refusal("unknown_key"))
}

fn cause(error: &ErrorKind) -> &'static str {
    match error {
        ErrorKind::InvalidSignature => "signature",
        ErrorKind::ExpiredSignature => "expired",
        ErrorKind::ImmatureSignature => "not_yet_valid",
        ErrorKind::InvalidAudience => "audience",
        ErrorKind::InvalidIssuer => "issuer",
        ErrorKind::InvalidAlgorithm => "algorithm",
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => "claims",
        _ => "malformed",
    }
}

#[cfg(test)]
mod tests;
