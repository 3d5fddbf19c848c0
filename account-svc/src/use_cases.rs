//! What the service does, one capability a file. Functions work inside the caller's transaction: on a
//! [`Change`](usher_runtime::change::Change) where they change something, on a connection where they read; the ones
//! that hash passwords between two transactions take the [`Context`](crate::context::Context).

pub mod accounts;
pub mod activation;
pub mod audit;
pub mod authentication;
pub mod close_account;
pub mod create_account;
pub mod deliveries;
pub mod duplicates;
pub mod invitations;
pub mod name_frequencies;
pub mod organizations;
pub mod update_account;
