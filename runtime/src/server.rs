//! The gRPC server: what every call passes through, in one place and in order.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::{Next, from_fn, from_fn_with_state},
    response::Response,
};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, Status, service::Routes, transport::Server};
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument as _;
use usher_proto::account::v1::ErrorReason;

use crate::{callers::Callers, config::ServerArgs, error::RichError, tls};

mod explain;
mod identify;
mod observe;

#[derive(Clone)]
struct Calls {
    /// Calls under way, also those whose caller has gone.
    tracker: TaskTracker,
    permits: Arc<Semaphore>,
    timeout: Duration,
}

/// Builds reflection (v1 and v1alpha, so that any grpcurl works) over the whole contract.
///
/// # Errors
/// If the descriptors are malformed.
pub fn add_reflection(routes: &mut Routes) -> anyhow::Result<()> {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(usher_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    let with_v1 = std::mem::take(routes).add_service(builder().build_v1()?);
    *routes = with_v1.add_service(builder().build_v1alpha()?);
    Ok(())
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
    let calls = Calls {
        tracker: TaskTracker::new(),
        permits: Arc::new(Semaphore::new(args.max_concurrent_requests)),
        timeout: args.request_timeout,
    };
    let server = Server::builder()
        .max_concurrent_streams(args.max_concurrent_streams)
        .max_connection_age(args.max_connection_age)
        .max_connection_age_grace(args.request_timeout)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .http2_max_header_list_size(16 * 1024)
        .add_routes(through_layers(routes, &calls, &callers))
        .serve_with_incoming_shutdown(
            tls::incoming(listener, callers.tls()),
            stop.clone().cancelled_owned(),
        );
    let drained = async {
        stop.cancelled().await;
        tokio::time::sleep(args.shutdown_timeout).await;
    };
    tokio::select! {
        result = server => result?,
        () = callers.follow_changes() => {}
        () = drained => tracing::warn!("calls were still open when the time for draining was over"),
    }
    // A caller that hung up leaves its call running; its transaction is finished too.
    calls.tracker.close();
    let _ = tokio::time::timeout(args.shutdown_timeout, calls.tracker.wait()).await;
    Ok(())
}

/// The layers, innermost first: a call passes them from the bottom of this list to its top.
fn through_layers(routes: Routes, calls: &Calls, callers: &Callers) -> Routes {
    routes
        .prepare()
        .into_axum_router()
        // 7. From here on the caller cannot stop the call: see `detach`.
        .layer(from_fn_with_state(calls.clone(), detach))
        // 6. Answer in time.
        .layer(from_fn_with_state(calls.clone(), keep_deadline))
        // 5. Who calls, and may they? Authentication and scopes belong here and nowhere else, before the body
        // is read.
        .layer(from_fn_with_state(callers.clone(), identify::identify))
        // 4. Errors that the gRPC library makes get a reason, like our own.
        .layer(from_fn(explain::explain_errors))
        // 3. A panic is answered with INTERNAL and hurts nobody else.
        .layer(CatchPanicLayer::custom(explain::PanicAnswer))
        // 2. One span, one log line, one measurement for each call.
        .layer(from_fn(observe::observe))
        // 1. The caller.
        .into()
}

/// Runs the call in a task of its own, which the caller's cancellation cannot drop.
///
/// sqlx 0.9.0 can return a connection with an open transaction to the pool when a future is dropped
/// while it begins one (transact-rs/sqlx issues 4385 and 4393); and no call should stop between two
/// statements because its caller was impatient.
async fn detach(State(calls): State<Calls>, request: Request, next: Next) -> Response {
    let Ok(permit) = Arc::clone(&calls.permits).try_acquire_owned() else {
        let error = RichError::new(
            Code::Unavailable,
            ErrorReason::Overloaded,
            "the service has as much work as it can take; repeat the call a little later",
        );
        return answer(error.retry_after(Duration::from_secs(1)).into());
    };
    let call = async move {
        let response = next.run(request).await;
        drop(permit);
        response
    };
    match calls.tracker.spawn(call.in_current_span()).await {
        Ok(response) => response,
        Err(join_error) => match join_error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Tasks are aborted only when the runtime shuts down.
            Err(_) => answer(Status::unavailable("the service is shutting down")),
        },
    }
}

async fn keep_deadline(State(calls): State<Calls>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(calls.timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => answer(
            RichError::new(
                Code::DeadlineExceeded,
                ErrorReason::DeadlineExceeded,
                "the call took too long and may have been carried out all the same; repeat it with the \
                 same request_id to learn the answer",
            )
            .into(),
        ),
    }
}

fn answer(status: Status) -> Response {
    status.into_http::<Body>()
}
