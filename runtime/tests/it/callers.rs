//! Who calls, over TLS.

mod certificates;
mod harness;
mod tokens;
