//! All SQL of account-svc, one file for each table or aggregate.
//!
//! Functions are named `verb` in a module named for the object, work on a connection inside the caller's
//! transaction, and never begin or commit one. Every query names its organization; row-level security is
//! the second wall. Times are the database's own.

pub mod account;
pub mod audit;
pub mod clock;
pub mod idempotency;
pub mod invitation;
pub mod login_throttle;
pub mod organization;
pub mod outbox;
pub mod person;
pub mod token;

/// How many rows a page of a filtered list looks at: bounds what a filter costs that matches few of them.
const LOOKED_AT: i64 = 20_000;

/// Rows of one page of a list.
#[derive(Debug)]
pub struct Listed<T> {
    /// What was found, in order.
    pub rows: Vec<T>,
    /// The last row that was looked at, matching or not, unless the end of the list was reached.
    pub last: Option<uuid::Uuid>,
}

impl<T> Listed<T> {
    /// All that there is.
    #[must_use]
    pub fn whole(rows: Vec<T>) -> Self {
        Self { rows, last: None }
    }
}

/// The role that the service works as.
pub const ROLE: &str = "account_service";

/// The migrations, embedded.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();
