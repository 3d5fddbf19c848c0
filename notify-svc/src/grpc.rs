//! The gRPC services: decode, call the use case in a unit of work, encode. One file for each service.

mod delivery;
mod status;
mod template;

use std::sync::Arc;

use tonic::service::Routes;
use usher_proto::notify::v1::{
    delivery_service_server::DeliveryServiceServer, template_service_server::TemplateServiceServer,
};
use usher_runtime::change::Store;

use crate::{
    domain::RecipientLimits, limits::SharedLimits, mail::Envelope, metrics::Metrics,
    render::Renderer, use_cases::sending::Due,
};

/// Serves every gRPC service.
#[derive(Clone)]
pub struct Service {
    pub store: Store,
    pub renderer: Arc<Renderer>,
    pub envelope: Envelope,
    pub metrics: Metrics,
    pub recipient_limits: RecipientLimits,
    pub shared_limits: SharedLimits,
    /// Wakes the sender.
    pub due: Due,
}

impl Service {
    /// Everything that this version serves. The other services of the contract answer UNIMPLEMENTED.
    ///
    /// Messages over `max_message_bytes` are refused.
    pub fn routes(self, max_message_bytes: usize) -> Routes {
        let deliveries = DeliveryServiceServer::new(self.clone());
        let templates = TemplateServiceServer::new(self);
        Routes::new(deliveries.max_decoding_message_size(max_message_bytes))
            .add_service(templates.max_decoding_message_size(max_message_bytes))
    }
}
