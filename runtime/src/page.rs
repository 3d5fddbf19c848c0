//! Pages of lists (AIP-158): a token holds where the page before ended and which query it belongs to.

use aws_lc_rs::digest;
use data_encoding::BASE64URL_NOPAD;
use prost::Message;
use tonic::{Code, Status};
use usher_proto::{account::v1::ErrorReason, rpc::PageRequest};
use uuid::Uuid;

use crate::{
    error::RichError,
    fields::{FieldViolation, InvalidFields},
};

const DEFAULT_PAGE_SIZE: usize = 50;
const MAX_PAGE_SIZE: usize = 500;
/// Most bytes of the messages of one response, as encoded: clients of gRPC accept 4 MiB unless they are told
/// otherwise.
pub const MAX_RESPONSE_BYTES: usize = 3 * 1024 * 1024;
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

    /// Encodes what was read, and cuts it to the page: after the rows asked for, or after
    /// [`MAX_RESPONSE_BYTES`], whatever comes first, but not before one row. The token of the next page is
    /// empty at the end.
    pub fn cut<T, M: Message>(
        &self,
        read: impl Into<Rows<T>>,
        id: impl Fn(&T) -> Uuid,
        to_message: impl Fn(T) -> M,
    ) -> (Vec<M>, String) {
        let Rows { rows, last_scanned } = read.into();
        let mut messages = Vec::with_capacity(rows.len().min(self.size));
        let mut bytes = 0;
        let mut last = None;
        for row in rows {
            let row_id = id(&row);
            let message = to_message(row);
            bytes += encoded_len(&message);
            if messages.len() == self.size || (bytes > MAX_RESPONSE_BYTES && last.is_some()) {
                return (messages, self.token(last));
            }
            messages.push(message);
            last = Some(row_id);
        }
        (messages, self.token(last_scanned))
    }

    fn token(&self, last: Option<Uuid>) -> String {
        last.map_or(String::new(), |last| encode(&self.query, last))
    }
}

/// Bytes that a message takes in a list of a response, with its tag and its length.
pub fn encoded_len(message: &impl Message) -> usize {
    let length = message.encoded_len();
    1 + prost::length_delimiter_len(length) + length
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

    /// A page of up to `size` rows, cut from `rows` texts of `length` bytes: how many it shows, and whether
    /// another one follows.
    fn cut(size: usize, rows: usize, length: usize) -> (usize, bool) {
        let page = Page {
            query: Vec::new(),
            after: None,
            size,
        };
        let rows: Vec<Uuid> = (1..=rows)
            .map(|row| Uuid::from_u128(row.try_into().unwrap()))
            .collect();
        let (messages, token) = page.cut(rows.clone(), |row| *row, |_| "x".repeat(length));
        if let Ok(Some(last)) = decode(b"", &token) {
            assert_eq!(Some(&last), rows.get(messages.len() - 1));
        }
        let sum: usize = messages.iter().map(encoded_len).sum();
        assert!(messages.len() == 1 || sum <= MAX_RESPONSE_BYTES, "{sum}");
        (messages.len(), !token.is_empty())
    }

    #[test]
    fn a_page_is_cut_by_rows_and_by_bytes() {
        assert_eq!(cut(3, 0, 1), (0, false));
        assert_eq!(cut(3, 3, 1), (3, false));
        assert_eq!(cut(3, 4, 1), (3, true));
        assert_eq!(cut(100, 10, 1024 * 1024), (2, true));
        assert_eq!(cut(100, 3, 1024 * 1024 - 16), (3, false));
        // One that is larger than a page is shown nevertheless: the list would have no end.
        assert_eq!(cut(100, 2, 5 * 1024 * 1024), (1, true));
        assert_eq!(cut(100, 1, 5 * 1024 * 1024), (1, false));
    }

    #[test]
    fn sizes_are_bounded() {
        assert_eq!(page_size(0), Ok(50));
        assert_eq!(page_size(7), Ok(7));
        assert_eq!(page_size(i32::MAX), Ok(500));
        assert_eq!(page_size(-1), Err(PageError::NegativeSize));
    }
}
