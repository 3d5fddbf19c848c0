//! The contract of Usher: its gRPC services, and the events that travel over RabbitMQ.
//!
//! The `.proto` files beside this crate are the truth; the types here are generated from them.

/// The encoded `FileDescriptorSet` of the whole contract, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

#[expect(
    missing_docs,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated; documented in the .proto files"
)]
mod generated {
    pub mod account_v1 {
        tonic::include_proto!("usher.account.v1");
    }
    pub mod event_v1 {
        tonic::include_proto!("usher.event.v1");
    }
    pub mod notify_v1 {
        tonic::include_proto!("usher.notify.v1");
    }
}

/// Services and messages for organizations, accounts, invitations and activation.
pub mod account {
    pub use super::generated::account_v1 as v1;
}

/// Events that the services exchange.
pub mod event {
    pub use super::generated::event_v1 as v1;
}

/// Services and messages for emails.
pub mod notify {
    pub use super::generated::notify_v1 as v1;
}

pub mod rpc;
pub mod topology;
