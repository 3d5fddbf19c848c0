//! Pages of lists (AIP-158): a token holds where the page before ended and which query it belongs to.

use aws_lc_rs::digest;
use data_encoding::BASE64URL_NOPAD;
use tonic::{Code, Status};
use usher_proto::{account::v1::ErrorReason, rpc::PageRequest};
use uuid::Uuid;

use crate::{
    error::RichError,
    fields::{FieldViolation, InvalidFields},
};

const DEFAULT_PAGE_SIZE: usize = 50;
const MAX_PAGE_SIZE: usize = 500;
const FINGERPRINT_LENGTH: usize = 8;

/// Which page of which list a request asks for.
#[derive(Debug)]
pub struct Page {
    query: Vec<u8>,
    /// The row that the page before ended with; `None` for the first page.
    pub after: Option<Uuid>,
    size: usize,
}

/// Rows that were read for a page.
#[derive(Debug)]
pub struct Rows<T> {
    /// What was found, in order: up to [`Page::limit`].
    pub rows: Vec<T>,
    /// The last row that was looked at, matching or not, unless the end of the list was reached: a filter
    /// that few rows match gives up after a bounded number of them.
    pub last_scanned: Option<Uuid>,
}

impl<T> From<Vec<T>> for Rows<T> {
    /// All that there is, up to the limit.
    fn from(rows: Vec<T>) -> Self {
        Self {
            rows,
            last_scanned: None,
        }
    }
}

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

impl Page {
    /// Reads the page fields of a request. A token belongs to its RPC and to all else that the request says.
    ///
    /// # Errors
    /// If the size is negative, or the token malformed or of another query.
    pub fn parse<R: PageRequest>(request: &R) -> Result<Self, PageError> {
        let query = [R::PATH.as_bytes(), &request.query()].concat();
        let after = decode(&query, request.page_token())?;
        let size = page_size(request.page_size())?;
        Ok(Self { query, after, size })
    }

    /// How many rows to read: one more than the page holds tells whether there is another page.
    #[must_use]
    pub fn limit(&self) -> i64 {
        i64::try_from(self.size).unwrap_or(i64::MAX - 1) + 1
    }

    /// Cuts what was read to the page; the token of the next one is empty at the end.
    pub fn cut<T>(&self, read: impl Into<Rows<T>>, id: impl Fn(&T) -> Uuid) -> (Vec<T>, String) {
        let Rows {
            mut rows,
            last_scanned,
        } = read.into();
        let last = if rows.len() > self.size {
            rows.truncate(self.size);
            rows.last().map(id)
        } else {
            last_scanned
        };
        let token = last.map_or(String::new(), |last| encode(&self.query, last));
        (rows, token)
    }
}

impl From<PageError> for Status {
    fn from(error: PageError) -> Self {
        match error {
            PageError::NegativeSize => InvalidFields::one("page_size", error).into(),
            PageError::MalformedToken => InvalidFields::one("page_token", error).into(),
            PageError::OtherQuery => RichError::new(
                Code::InvalidArgument,
                ErrorReason::PageTokenMismatch,
                format!("page_token: {error}"),
            )
            .fields(vec![FieldViolation::new("page_token", error)])
            .into(),
        }
    }
}

/// The number of rows of a page: [`DEFAULT_PAGE_SIZE`] for 0, at most [`MAX_PAGE_SIZE`].
fn page_size(requested: i32) -> Result<usize, PageError> {
    match requested {
        ..0 => Err(PageError::NegativeSize),
        0 => Ok(DEFAULT_PAGE_SIZE),
        size => Ok(usize::try_from(size)
            .unwrap_or(MAX_PAGE_SIZE)
            .min(MAX_PAGE_SIZE)),
    }
}

/// A token for the page after the row `last` of the list that `query` describes.
fn encode(query: &[u8], last: Uuid) -> String {
    let mut token = fingerprint(query).to_vec();
    token.extend_from_slice(last.as_bytes());
    BASE64URL_NOPAD.encode(&token)
}

/// The row that the page before ended with; `None` for the first page.
fn decode(query: &[u8], token: &str) -> Result<Option<Uuid>, PageError> {
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
