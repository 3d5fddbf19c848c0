//! What recognizes a repeated call (AIP-155): the same `request_id` with the same request.

use aws_lc_rs::digest;
use usher_proto::rpc::RpcRequest;
use uuid::Uuid;

/// The `request_id` of a call, with the hash of what it asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestKey {
    /// Made by the caller.
    pub request_id: Uuid,
    /// SHA-256 of the RPC and its request, without passwords.
    pub request_hash: Vec<u8>,
}

impl RequestKey {
    /// The key of a request. Its `request_id` is compared as a UUID: capitals change nothing.
    #[must_use]
    pub fn new<R: RpcRequest>(request_id: Uuid, request: &R) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(R::PATH.as_bytes());
        context.update(&request.content());
        Self {
            request_id,
            request_hash: context.finish().as_ref().to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use usher_proto::account::v1::{ActivateAccountRequest, ReopenAccountRequest};

    use super::*;

    #[test]
    fn a_password_is_not_hashed() {
        let id = Uuid::now_v7();
        let key = |password: &str| {
            let request = ActivateAccountRequest {
                token: "token".to_owned(),
                password: password.to_owned(),
                ..Default::default()
            };
            RequestKey::new(id, &request)
        };
        assert_eq!(key("one"), key("another"));
    }

    #[test]
    fn another_request_has_another_hash() {
        let id = Uuid::now_v7();
        let key = |account_id: &str| {
            let request = ReopenAccountRequest {
                account_id: account_id.to_owned(),
                request_id: id.to_string().to_uppercase(),
                ..Default::default()
            };
            RequestKey::new(id, &request)
        };
        assert_eq!(key("a"), key("a"));
        assert_ne!(key("a"), key("b"));
    }
}
