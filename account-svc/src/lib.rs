//! account-svc: owns accounts, duplicate checks, invitations and activation tokens.
//!
//! A request takes three hops: [`grpc`] decodes it, a use case (a module here, named for what it does)
//! decides in a transaction of its own, [`db`] holds the SQL.

pub mod accounts;
pub mod activation;
pub mod app;
pub mod authentication;
pub mod config;
pub mod context;
pub mod db;
pub mod deliveries;
pub mod domain;
pub mod duplicates;
pub mod error;
pub mod events;
pub mod grpc;
pub mod housekeeping;
pub mod idempotency;
pub mod invitations;
pub mod organizations;
