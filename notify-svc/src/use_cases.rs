//! What the service can do, one module for each capability.

pub mod deliveries;
pub mod intake;
pub mod recipient_throttle;
pub mod sending;
pub mod shared_throttle;
pub mod templates;
pub mod throttle_state;
