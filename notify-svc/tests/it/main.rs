//! notify-svc against real PostgreSQL, both event buses, and an SMTP server that fails on request. Needs
//! `DATABASE_URL`, the administrator's URL of a server, and `AMQP_URL`.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests say what went wrong by panicking"
)]

mod api;
mod cancel;
mod crash;
mod dialogue;
mod extensions;
mod faults;
mod intake;
mod leases;
mod outages;
mod pipeline;
mod rabbitmq;
mod requests;
mod retry;
mod scripted_smtp;
mod shared_limits;
mod smtp_sink;
mod storage;
mod support;
mod telemetry;
mod throttle_state;
mod throttling;
mod transports;
mod watch;
