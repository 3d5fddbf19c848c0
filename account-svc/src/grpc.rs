//! The gRPC services: decode, call the use case in a unit of work, encode. One file for each service.

mod account;
mod activation;
mod audit;
mod decode;
mod encode;
mod invitation;
mod organization;
mod status;

use tonic::service::Routes;
use usher_proto::account::v1::{
    account_service_server::AccountServiceServer,
    activation_service_server::ActivationServiceServer, audit_service_server::AuditServiceServer,
    invitation_service_server::InvitationServiceServer,
    organization_service_server::OrganizationServiceServer,
};

use crate::context::Context;

/// Everything that this version serves. The other services of the contract answer UNIMPLEMENTED.
///
/// Messages over `max_message_bytes` are refused.
#[must_use]
pub fn routes(context: &Context, max_message_bytes: usize) -> Routes {
    macro_rules! served {
        ($server:ident) => {
            $server::new(Service {
                context: context.clone(),
            })
            .max_decoding_message_size(max_message_bytes)
        };
    }
    Routes::new(served!(OrganizationServiceServer))
        .add_service(served!(AccountServiceServer))
        .add_service(served!(InvitationServiceServer))
        .add_service(served!(ActivationServiceServer))
        .add_service(served!(AuditServiceServer))
}

/// Serves every gRPC service.
struct Service {
    context: Context,
}
