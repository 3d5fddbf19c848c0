//! notify-svc
pub mod render;
