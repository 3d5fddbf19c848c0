//! The relay on a real outbox: what it may lose (nothing) and repeat (what was not deleted).

mod bounds;
mod harness;
mod publishing;
mod retries;
mod sharing;
mod stopping;
