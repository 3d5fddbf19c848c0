//! Pages of lists: the same for every List call.

use usher_runtime::{
    error::{FieldParser, InvalidFields},
    page_token::{self, PageError},
};
use uuid::Uuid;

use crate::{db::Listed, error::Error};

/// Which page of which list.
pub(super) struct Page {
    query: Vec<u8>,
    /// The row that the page before ended with.
    pub(super) after: Option<Uuid>,
    size: i64,
}

impl Page {
    /// Reads the page fields of a request. `query` is the encoded request without them.
    pub(super) fn parse(query: Vec<u8>, page_size: i32, page_token: &str) -> Result<Self, Error> {
        let mut parser = FieldParser::default();
        let size = parser.take("page_size", page_token::page_size(page_size));
        let after = match page_token::decode(&query, page_token) {
            Err(PageError::OtherQuery) => return Err(Error::PageTokenMismatch),
            decoded => parser.take("page_token", decoded),
        };
        match (size, after) {
            (Some(size), Some(after)) => Ok(Self { query, after, size }),
            _ => Err(parser
                .finish()
                .err()
                .unwrap_or(InvalidFields(Vec::new()))
                .into()),
        }
    }

    /// How many rows to read: one more than the page holds tells whether there is another page.
    pub(super) fn limit(&self) -> i64 {
        self.size + 1
    }

    /// Cuts what was listed to the page; the token of the next one is empty at the end.
    pub(super) fn cut<T>(&self, listed: Listed<T>, id: impl Fn(&T) -> Uuid) -> (Vec<T>, String) {
        let Listed { mut rows, last } = listed;
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        let last = if rows.len() > size {
            rows.truncate(size);
            rows.last().map(id)
        } else {
            last
        };
        let token = last.map_or(String::new(), |last| page_token::encode(&self.query, last));
        (rows, token)
    }
}
