//! notify-svc: takes invitation events in, writes the emails, and sends each exactly as often and as soon as it
//! may go.
//!
//! A request takes three hops: `grpc` decodes it, a module of [`use_cases`] decides, [`db`] holds the SQL. An
//! email goes from [`use_cases::intake`] by way of the table of deliveries to [`use_cases::sending`], which
//! writes it with [`render`] and [`mail`] and hands it to [`smtp`].

pub mod app;
pub mod config;
pub mod db;
pub mod domain;
pub mod error;
pub mod events;
mod grpc;
pub mod limits;
pub mod local_inbox;
pub mod mail;
pub mod metrics;
pub mod render;
mod retention;
pub mod smtp;
pub mod throttle;
pub mod use_cases;
