//! account-svc
