//! Who calls, and may they? The one place where callers are identified.

use std::sync::LazyLock;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use opentelemetry::{KeyValue, global, metrics::Counter};
use tonic::Code;
use usher_proto::{account::v1::ErrorReason, rpc::Rpc};

use super::{auxiliary::HEALTH, calls::answer, connections::ConnectionInfo};
use crate::{
    callers::{Callers, Refusal},
    error::RichError,
};

/// `usher.callers.refused`: calls, by what was wrong with who called.
static REFUSED: LazyLock<Counter<u64>> = LazyLock::new(|| {
    global::meter("usher")
        .u64_counter("usher.callers.refused")
        .with_unit("{call}")
        .with_description("Calls that were refused because of who called, by cause")
        .build()
});

/// Puts the [`Caller`](crate::caller::Caller) into the extensions of the request, or refuses it. Health is
/// asked by probes, which have no identity; reflection needs one, but no scope.
pub(super) async fn identify(
    State(callers): State<Callers>,
    mut request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    if path.starts_with(HEALTH) {
        return next.run(request).await;
    }
    let rpc = Rpc::find(path);
    let connection = request.extensions().get::<ConnectionInfo>().cloned();
    let peer = connection.as_ref().map(|connection| &connection.peer);
    let caller = match callers.authenticate(request.headers(), peer).await {
        Ok(caller) => caller,
        Err(Refusal(cause)) => {
            count_refused(cause);
            return answer(unauthenticated().into());
        }
    };
    if let Some(Err(error)) = rpc.map(|rpc| caller.reach(rpc)) {
        count_refused("scope");
        return answer(RichError::from(error).into());
    }
    if let Some(connection) = connection {
        connection.keep();
    }
    request.extensions_mut().insert(caller);
    next.run(request).await
}

fn count_refused(cause: &'static str) {
    tracing::debug!(cause, "a caller was refused");
    REFUSED.add(1, &[KeyValue::new("cause", cause)]);
}

/// The same for every cause: whoever tries tokens learns nothing from the answer.
fn unauthenticated() -> RichError {
    RichError::new(
        Code::Unauthenticated,
        ErrorReason::CallerUnauthenticated,
        "the caller did not prove who it is; send a valid token of the service's issuer as `authorization: \
         Bearer …`, or use a client certificate, as the service requires",
    )
}
