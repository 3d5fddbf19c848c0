//! All SQL of notify-svc but the outbox's, one file for each table.
//!
//! Functions are named `verb` in a module named for the object, work on a connection inside the caller's
//! transaction and on whole batches, and never begin or commit a transaction. Times are the database's own.

pub mod delivery;
pub mod inbox;
pub mod recipient_slot;
pub mod revocation;
pub mod suppression;
pub mod throttle;

/// The role that the service works as.
pub const ROLE: &str = "notify_service";

/// The migrations, embedded.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();
