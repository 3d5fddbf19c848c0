//! The layers of the server, with callers that do not behave.

mod calls;
mod connections;
mod harness;
mod health;
mod reflection;
mod refusals;
mod requests;
mod responses;
mod streaming;
mod telemetry;
