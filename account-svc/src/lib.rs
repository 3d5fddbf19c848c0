//! account-svc: owns accounts, duplicate checks, invitations and activation tokens.
//!
//! A request takes three hops: [`grpc`] decodes it and opens the unit of work, a use case ([`use_cases`])
//! decides, [`db`] holds the SQL.

pub mod app;
pub mod config;
pub mod context;
pub mod db;
pub mod domain;
pub mod error;
pub mod events;
pub mod grpc;
pub mod passwords;
pub mod retention;
pub mod use_cases;
