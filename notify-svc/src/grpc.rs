//! The gRPC API: decode, call the use case, encode. One file for each service.

mod deliveries;
mod status;
mod templates;

use std::sync::Arc;

use sqlx::PgPool;
use tonic::service::Routes;
use usher_proto::notify::v1::{
    delivery_service_server::DeliveryServiceServer, template_service_server::TemplateServiceServer,
};

use self::{deliveries::Deliveries, templates::Templates};
use crate::{mail::Envelope, render::Renderer};

/// Everything that this version serves. The other services of the contract answer UNIMPLEMENTED.
///
/// Messages over `max_message_bytes` are refused.
pub fn routes(
    pool: PgPool,
    renderer: Arc<Renderer>,
    envelope: Envelope,
    max_message_bytes: usize,
) -> Routes {
    Routes::new(
        DeliveryServiceServer::new(Deliveries { pool, envelope })
            .max_decoding_message_size(max_message_bytes),
    )
    .add_service(
        TemplateServiceServer::new(Templates { renderer })
            .max_decoding_message_size(max_message_bytes),
    )
}
