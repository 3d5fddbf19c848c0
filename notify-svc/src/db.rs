//! SQL, one file for each table, functions on a connection. All of them work on batches.

pub mod claims;
pub mod deliveries;
pub mod inbox;
pub mod outcomes;
pub mod revocations;
pub mod throttles;

/// The role that the service takes on in its database: it owns nothing.
pub const ROLE: &str = "notify_service";

/// The migrations of the service's database.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();
