//! Who calls, and may they? The one place where callers are identified.

use axum::{extract::Request, middleware::Next, response::Response};

use crate::caller::Caller;

/// Puts the [`Caller`] into the extensions of the request. The header `usher-caller` is trusted as sent.
pub(super) async fn identify(mut request: Request, next: Next) -> Response {
    let subject = request
        .headers()
        .get("usher-caller")
        .and_then(|value| value.to_str().ok())
        .filter(|subject| !subject.is_empty() && subject.len() <= 128)
        .unwrap_or("anonymous")
        .to_owned();
    request
        .extensions_mut()
        .insert(Caller::unrestricted(subject));
    next.run(request).await
}
