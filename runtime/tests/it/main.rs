//! The runtime against real servers. Needs `AMQP_URL` and `DATABASE_URL`.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests say what went wrong by panicking"
)]

mod bus_conformance;
mod bus_dead_letters;
mod bus_rabbitmq;
mod callers;
mod change;
mod consumer;
mod database;
mod housekeeping;
mod reflection;
mod relay;
mod server;
mod service;
mod support;
