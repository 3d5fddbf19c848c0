//! notify-svc: takes invitation events in, writes the emails, and sends each exactly as often and as soon
//! as it may go.
//!
//! The way of an email: [`intake`] → [`sender`] → [`render`] → [`smtp`], with [`db`] between the steps.

pub mod app;
mod batch;
pub mod config;
pub mod db;
pub mod domain;
pub mod events;
mod grpc;
mod housekeeping;
pub mod intake;
pub mod limits;
pub mod local_inbox;
pub mod mail;
pub mod metrics;
pub mod render;
pub mod sender;
pub mod smtp;
pub mod throttle;
