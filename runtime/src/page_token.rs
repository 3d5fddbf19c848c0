//! Pages of lists (AIP-158): a token holds where the page before ended and which query it belongs to.

use aws_lc_rs::digest;
use data_encoding::BASE64URL_NOPAD;
use uuid::Uuid;

const DEFAULT_PAGE_SIZE: i32 = 50;
const MAX_PAGE_SIZE: i32 = 500;
const FINGERPRINT_LENGTH: usize = 8;

/// Why a page was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// The size is negative.
    #[error("must not be negative; 0 means {DEFAULT_PAGE_SIZE}")]
    NegativeSize,
    /// The token is not one of ours.
    #[error("not a page token; send `next_page_token` of the page before, or nothing")]
    MalformedToken,
    /// The token belongs to a list with another filter.
    #[error("belongs to a list with another filter; start at the first page")]
    OtherQuery,
}

/// The number of rows of a page: [`DEFAULT_PAGE_SIZE`] for 0, at most [`MAX_PAGE_SIZE`].
///
/// # Errors
/// If `requested` is negative.
pub fn page_size(requested: i32) -> Result<i64, PageError> {
    match requested {
        ..0 => Err(PageError::NegativeSize),
        0 => Ok(DEFAULT_PAGE_SIZE.into()),
        size => Ok(size.min(MAX_PAGE_SIZE).into()),
    }
}

/// A token for the page after the row `last` of the list that `query` describes. `query` holds all that
/// selects or orders the rows, for example the encoded request without its page fields.
#[must_use]
pub fn encode(query: &[u8], last: Uuid) -> String {
    let mut token = fingerprint(query).to_vec();
    token.extend_from_slice(last.as_bytes());
    BASE64URL_NOPAD.encode(&token)
}

/// The row that the page before ended with; `None` for the first page.
///
/// # Errors
/// If the token is malformed or belongs to another query.
pub fn decode(query: &[u8], token: &str) -> Result<Option<Uuid>, PageError> {
    if token.is_empty() {
        return Ok(None);
    }
    let bytes = BASE64URL_NOPAD
        .decode(token.as_bytes())
        .map_err(|_| PageError::MalformedToken)?;
    let (actual, last) = bytes
        .split_at_checked(FINGERPRINT_LENGTH)
        .ok_or(PageError::MalformedToken)?;
    let last = Uuid::from_slice(last).map_err(|_| PageError::MalformedToken)?;
    if actual == fingerprint(query) {
        Ok(Some(last))
    } else {
        Err(PageError::OtherQuery)
    }
}

fn fingerprint(query: &[u8]) -> [u8; FINGERPRINT_LENGTH] {
    let hash = digest::digest(&digest::SHA256, query);
    let mut fingerprint = [0; FINGERPRINT_LENGTH];
    fingerprint.copy_from_slice(&hash.as_ref()[..FINGERPRINT_LENGTH]);
    fingerprint
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leads_back_to_its_row() {
        let last = Uuid::now_v7();
        let token = encode(b"query", last);
        assert_eq!(decode(b"query", &token), Ok(Some(last)));
        assert_eq!(decode(b"query", ""), Ok(None));
    }

    #[test]
    fn a_token_of_another_query_is_refused() {
        let token = encode(b"query", Uuid::now_v7());
        assert_eq!(decode(b"other", &token), Err(PageError::OtherQuery));
        assert_eq!(decode(b"query", "%%%"), Err(PageError::MalformedToken));
        assert_eq!(decode(b"query", "AAAA"), Err(PageError::MalformedToken));
    }

    #[test]
    fn sizes_are_bounded() {
        assert_eq!(page_size(0), Ok(50));
        assert_eq!(page_size(7), Ok(7));
        assert_eq!(page_size(i32::MAX), Ok(500));
        assert_eq!(page_size(-1), Err(PageError::NegativeSize));
    }
}
