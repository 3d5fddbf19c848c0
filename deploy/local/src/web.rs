//! The web page: an inbox with the emails as their recipients see them, and behind the links a portal in
//! miniature, which knows nothing but the gRPC API.

mod inbox;
mod pages;
mod portal;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use tonic::transport::Channel;
use usher_proto::account::v1::activation_service_client::ActivationServiceClient;

use notify_svc::local_inbox::LocalInbox;
use pages::Pages;

/// What pages may load: their own style sheet, a logo, the email in its frame; no script at all.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'self'; img-src 'self' https:; frame-src 'self'; form-action 'self'; \
     base-uri 'none'; frame-ancestors 'none'",
);

/// What the pages need.
pub(crate) struct Web {
    pages: Pages,
    /// `None` if emails go to a real relay.
    inbox: Option<LocalInbox>,
    activation: ActivationServiceClient<Channel>,
    /// The organization whose clients sign in at `/login`.
    organization_id: String,
}

impl Web {
    /// Compiles the pages.
    ///
    /// # Errors
    ///
    /// If a template is malformed.
    pub(crate) fn new(
        inbox: Option<LocalInbox>,
        activation: ActivationServiceClient<Channel>,
        organization_id: String,
    ) -> Result<Self, minijinja::Error> {
        Ok(Self {
            pages: Pages::new()?,
            inbox,
            activation,
            organization_id,
        })
    }

    /// The routes.
    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/", get(inbox::list))
            .route("/mail/{id}", get(inbox::show))
            .route("/mail/{id}/html", get(inbox::html))
            .route("/activate", get(portal::open).post(portal::activate))
            .route("/share", get(portal::share))
            .route("/login", get(portal::login_form).post(portal::login))
            .route("/style.css", get(pages::style))
            .layer(middleware::from_fn(guard))
            .with_state(Arc::new(self))
    }
}

/// Answers only to names of this machine, and tells browsers to keep what they see to themselves.
///
/// The inbox holds usable links. A page elsewhere could have its own name resolve to 127.0.0.1 and read
/// them (DNS rebinding), but not without that name in the `Host` header.
async fn guard(request: Request, next: Next) -> Response {
    let host = request
        .headers()
        .get(HOST)
        .and_then(|host| host.to_str().ok());
    if !host.is_some_and(is_local) {
        let text = "Open this page as http://localhost or http://127.0.0.1.\n";
        return (StatusCode::MISDIRECTED_REQUEST, text).into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers
        .entry(CONTENT_SECURITY_POLICY)
        .or_insert(PAGE_POLICY);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Whether a `Host` header names this machine, with any port: it may be forwarded.
fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    matches!(name, "localhost" | "127.0.0.1" | "[::1]")
}
