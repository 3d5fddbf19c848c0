//! The gRPC server: what every call passes through, in one place and in order.

use std::{collections::BTreeSet, time::Duration};

use axum::{
    http::Uri,
    middleware::{from_fn, from_fn_with_state, map_request_with_state},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{service::Routes, transport::Server};
use tower_http::catch_panic::CatchPanicLayer;
use usher_proto::rpc::RPCS;

pub(crate) use self::auxiliary::MAX_HEALTH_BYTES;
use self::{auxiliary::MAX_REFLECTION_BYTES, calls::Calls};
use crate::{callers::Callers, config::ServerArgs};

mod auxiliary;
mod calls;
mod connections;
mod drain;
mod explain;
mod identify;
mod observe;
mod places;
mod response;
mod streaming;
mod unary;

/// Streams that a client may open and reset before they were looked at (CVE-2023-44487), and that it may make
/// the server reset by errors of its own; after that its connection is closed.
const MAX_RESETS: usize = 64;

/// Longest headers of a request, in bytes, as HTTP/2 counts them.
const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// Adds reflection (v1 and v1alpha, so that any grpcurl works), and an answer for methods that `routes` do not have.
///
/// Listed are the services that are `program`'s, for example `account-svc`, with health and reflection; every
/// message of the contract and every type of error details can be looked up.
///
/// # Errors
/// If the descriptors are malformed.
pub fn add_reflection(routes: &mut Routes, program: &'static str) -> anyhow::Result<()> {
    let builder = || {
        let builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(usher_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(
                tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
            );
        listed_services(program).into_iter().fold(
            builder,
            tonic_reflection::server::Builder::with_service_name,
        )
    };
    let v1 = builder().build_v1()?;
    let v1alpha = builder().build_v1alpha()?;
    *routes = std::mem::take(routes)
        .add_service(v1.max_decoding_message_size(MAX_REFLECTION_BYTES))
        .add_service(v1alpha.max_decoding_message_size(MAX_REFLECTION_BYTES))
        .into_axum_router()
        .fallback(async move |uri: Uri| explain::not_served(program, uri.path()))
        .into();
    Ok(())
}

fn listed_services(program: &str) -> BTreeSet<&'static str> {
    RPCS.iter()
        .filter(|rpc| rpc.program() == program)
        .map(|rpc| rpc.service)
        .chain([
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
        ])
        .collect()
}

/// Serves `routes` to `callers` until `stop`, then finishes the calls that are under way, for at most
/// [`ServerArgs::shutdown_timeout`].
///
/// # Errors
/// If the listener breaks.
pub async fn serve(
    listener: TcpListener,
    routes: Routes,
    callers: Callers,
    args: &ServerArgs,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let calls = Calls::new(args, stop.clone());
    let incoming = connections::incoming(listener, callers.tls(), args.max_connections);
    let server = Server::builder()
        .max_concurrent_streams(args.max_concurrent_streams)
        .max_connection_age(args.max_connection_age)
        .max_connection_age_grace(args.request_timeout)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .http2_max_pending_accept_reset_streams(Some(MAX_RESETS))
        .http2_max_local_error_reset_streams(Some(MAX_RESETS))
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .add_routes(through_layers(routes, &calls, &callers))
        .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
    let finished = async {
        let result = server.await;
        // A caller that hung up leaves its call running; its transaction is finished too.
        calls.tracker.close();
        calls.tracker.wait().await;
        result
    };
    let too_late = async {
        stop.cancelled().await;
        tokio::time::sleep(args.shutdown_timeout).await;
    };
    tokio::select! {
        result = finished => result?,
        () = callers.follow_changes() => {}
        () = too_late => tracing::warn!("calls were still open when the time for draining was over"),
    }
    Ok(())
}

/// The layers, innermost first: a call passes them from the bottom of this list to its top.
fn through_layers(routes: Routes, calls: &Calls, callers: &Callers) -> Routes {
    routes
        .prepare()
        .into_axum_router()
        // 6. Read the request, take a permit, run in a task of its own under a deadline.
        .layer(from_fn_with_state(calls.clone(), unary::carry_out))
        // 5. Who calls, and may they? Authentication and scopes belong here and nowhere else, before the body
        // is read.
        .layer(from_fn_with_state(callers.clone(), identify::identify))
        // 4. Errors that the gRPC library makes get a reason, like our own.
        .layer(from_fn(explain::explain_errors))
        // 3. A panic is answered with INTERNAL and hurts nobody else.
        .layer(CatchPanicLayer::custom(explain::PanicAnswer))
        // 2. One span, one log line, one measurement for each call.
        .layer(from_fn(observe::observe))
        // 1. What the others leave of a request is received all the same, within bounds.
        .layer(map_request_with_state(calls.max_body, drain::drain_when_dropped))
        // 0. The caller.
        .into()
}
