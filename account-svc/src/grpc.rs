//! The gRPC services: decode, call the use case, encode. One file for each service.

mod account;
mod activation;
mod decode;
mod encode;
mod invitation;
mod organization;
mod status;

use tonic::service::Routes;
use usher_proto::account::v1::{
    account_service_server::AccountServiceServer,
    activation_service_server::ActivationServiceServer,
    invitation_service_server::InvitationServiceServer,
    organization_service_server::OrganizationServiceServer,
};

use crate::context::Context;

/// Everything that this version serves. The other services of the contract answer UNIMPLEMENTED.
///
/// Messages over `max_message_bytes` are refused.
#[must_use]
pub fn routes(context: &Context, max_message_bytes: usize) -> Routes {
    let service = || Service {
        context: context.clone(),
    };
    Routes::new(
        OrganizationServiceServer::new(service()).max_decoding_message_size(max_message_bytes),
    )
    .add_service(AccountServiceServer::new(service()).max_decoding_message_size(max_message_bytes))
    .add_service(
        InvitationServiceServer::new(service()).max_decoding_message_size(max_message_bytes),
    )
    .add_service(
        ActivationServiceServer::new(service()).max_decoding_message_size(max_message_bytes),
    )
}

/// Serves every gRPC service.
struct Service {
    context: Context,
}

fn subject<T>(request: &tonic::Request<T>) -> String {
    request
        .extensions()
        .get::<usher_runtime::caller::Caller>()
        .map_or_else(|| "anonymous".to_owned(), |caller| caller.subject.clone())
}
