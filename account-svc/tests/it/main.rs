//! account-svc through its gRPC API, on a real PostgreSQL.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests say what went wrong by panicking"
)]

mod accounts;
mod activation;
mod audit;
mod bad_input;
mod cancellation;
mod clock;
mod close_account;
mod deliveries;
mod duplicate_candidates;
mod duplicate_isolation;
mod duplicate_keys;
mod duplicate_names;
mod duplicate_races;
mod duplicate_settings;
mod duplicates;
mod idempotency;
mod invitations;
mod login;
mod login_deadlines;
mod name_frequencies;
mod organizations;
mod outages;
mod resend;
mod secrets;
mod sizes;
mod storage;
mod support;
