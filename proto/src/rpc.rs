//! What the contract says about each RPC, generated from the `.proto` files.

use prost::Message;

/// One RPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rpc {
    /// Full name of its gRPC service, for example `usher.account.v1.AccountService`.
    pub service: &'static str,
    /// Path of its HTTP/2 requests, for example `/usher.account.v1.AccountService/GetAccount`.
    pub path: &'static str,
    /// The scope that its callers need (option `usher.options.v1.scope`). Empty if the contract forgot it.
    pub scope: &'static str,
    /// Whether its request is a stream.
    pub is_client_streaming: bool,
    /// Whether its response is a stream.
    pub is_server_streaming: bool,
}

impl Rpc {
    /// The program that serves it: each serves one package of the contract.
    #[must_use]
    pub fn program(&self) -> &'static str {
        if self.service.starts_with("usher.notify.") {
            "notify-svc"
        } else {
            "account-svc"
        }
    }

    /// Whether the RPC belongs to no organization.
    #[must_use]
    pub fn is_of_platform(&self) -> bool {
        self.scope.starts_with("platform/")
    }

    /// Whether request or response is a stream.
    #[must_use]
    pub fn is_streaming(&self) -> bool {
        self.is_client_streaming || self.is_server_streaming
    }

    /// The RPC with this path.
    #[must_use]
    pub fn find(path: &str) -> Option<&'static Self> {
        RPCS.iter().find(|rpc| rpc.path == path)
    }
}

/// A request that comes as one message.
pub trait RpcRequest: Message + Clone {
    /// Path of the RPC.
    const PATH: &'static str;

    /// Path of the field that names the organization; empty if none does.
    const ORGANIZATION_FIELD: &'static str;

    /// Whether the request has a field that is kept out of logs (`debug_redact`), as a password. Such a field is not
    /// part of [`content`](Self::content): whoever repeats the request has to prove again that they know it.
    const HAS_SECRET: bool;

    /// The organization that the request names, as the caller wrote it. `None` for requests that name none.
    fn organization_id(&self) -> Option<&str>;

    /// The `request_id` as the caller wrote it; empty without one.
    fn request_id(&self) -> &str;

    /// The encoded request without its request id and without passwords: equal for a repeated request.
    fn content(&self) -> Vec<u8>;
}

/// A request for one page of a list (AIP-158).
pub trait PageRequest: RpcRequest {
    /// How many rows to return, as the caller wrote it.
    fn page_size(&self) -> i32;

    /// Where the page begins, as the caller wrote it; empty for the first page.
    fn page_token(&self) -> &str;

    /// The encoded request without its page: equal for all pages of a list.
    fn query(&self) -> Vec<u8>;
}

#[expect(
    clippy::unnecessary_literal_bound,
    reason = "generated; requests without a request id answer a literal"
)]
mod generated {
    use prost::Message as _;

    use super::{PageRequest, Rpc, RpcRequest};

    include!(concat!(env!("OUT_DIR"), "/rpc.rs"));
}

pub use self::generated::RPCS;
