//! What both of Usher's services are made of: no domain, and only the queries of tables that both have.

pub mod admin;
pub mod backoff;
pub mod bus;
pub mod call;
pub mod caller;
pub mod callers;
pub mod config;
pub mod database;
pub mod error;
pub mod fields;
pub mod health;
pub mod outbox;
pub mod page;
pub mod relay;
pub mod request_key;
pub mod seal;
pub mod server;
pub mod service;
pub mod shutdown;
pub mod stream;
pub mod telemetry;
pub mod timestamp;
mod tls;
pub mod trace_context;
mod watched_files;
pub mod workers;
