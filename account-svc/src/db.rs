//! All SQL of account-svc, one file for each table or aggregate.
//!
//! Functions are named `verb` in a module named for the object, work on a connection inside the caller's
//! transaction, and never begin or commit one. Every query names its organization; row-level security
//! shows no others to one that forgets it. Times are the database's own.

pub mod account;
pub mod audit;
pub mod invitation;
pub mod login_throttle;
pub mod name_frequency;
pub mod organization;
pub mod person;
pub mod time_zone;
pub mod token;

/// How many rows a page of a filtered list scans at most: bounds what a filter costs that few rows match.
const MAX_SCANNED: i64 = 20_000;

/// The role that the service works as.
pub const ROLE: &str = "account_service";

/// The migrations, embedded.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();
