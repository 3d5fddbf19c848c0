//! The gRPC API: decode, call, encode.

mod deliveries;
mod status;
mod templates;

use std::sync::Arc;

use sqlx::PgPool;
use tonic::service::{Routes, RoutesBuilder};
use usher_proto::notify::v1::{
    delivery_service_server::DeliveryServiceServer, template_service_server::TemplateServiceServer,
};

use self::{deliveries::Deliveries, templates::Templates};
use crate::{mail::Envelope, render::Renderer};

/// The service's API.
pub fn routes(pool: PgPool, renderer: Arc<Renderer>, envelope: Envelope) -> Routes {
    let mut routes = RoutesBuilder::default();
    routes
        .add_service(DeliveryServiceServer::new(Deliveries { pool, envelope }))
        .add_service(TemplateServiceServer::new(Templates { renderer }));
    routes.routes()
}
