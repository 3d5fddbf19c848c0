//! account-svc: owns accounts, duplicate checks, invitations and activation tokens.

pub mod domain;
