//! The inbox: emails as their recipients see them.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::header::CONTENT_SECURITY_POLICY;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{Html, IntoResponse as _, Response};
use minijinja::{Value, context};
use serde::Deserialize;
use uuid::Uuid;

use super::Web;
use crate::mailbox::{self, Mail};

/// What the HTML of an email may do: show itself and images, and follow a link that was clicked.
const MAIL_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; img-src https: http: data:; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'self'; \
     sandbox allow-top-navigation-by-user-activation allow-popups allow-popups-to-escape-sandbox",
);

/// How the list is shown.
#[derive(Debug, Deserialize)]
pub(super) struct ListQuery {
    /// `off` shows it as it is now.
    refresh: Option<String>,
}

/// `GET /`: the list, newest first.
pub(super) async fn list(State(web): State<Arc<Web>>, Query(query): Query<ListQuery>) -> Response {
    let mails = web.inbox.as_ref().map(mailbox::list).unwrap_or_default();
    let mails: Vec<Value> = mails.into_iter().map(Value::from).collect();
    let values = context! {
        is_local => web.inbox.is_some(),
        is_refreshing => query.refresh.as_deref() != Some("off"),
        mails,
    };
    web.pages.page(StatusCode::OK, "inbox.html", values)
}

/// `GET /mail/{id}`: one email with its headers, its HTML in a frame, its text.
pub(super) async fn show(State(web): State<Arc<Web>>, Path(id): Path<Uuid>) -> Response {
    match find(&web, id) {
        Some(mail) => web
            .pages
            .page(StatusCode::OK, "mail.html", context! { mail }),
        None => no_such_mail(&web),
    }
}

/// `GET /mail/{id}/html`: the HTML of an email, for the frame.
pub(super) async fn html(State(web): State<Arc<Web>>, Path(id): Path<Uuid>) -> Response {
    let Some(mail) = find(&web, id) else {
        return no_such_mail(&web);
    };
    // A link takes the place of the page around the frame, not of the email inside it.
    let html = mail.html.replace(" target=\"_blank\"", "");
    let html = html.replace("<a ", "<a target=\"_top\" ");
    ([(CONTENT_SECURITY_POLICY, MAIL_POLICY)], Html(html)).into_response()
}

fn find(web: &Web, id: Uuid) -> Option<Mail> {
    mailbox::find(web.inbox.as_ref()?, id)
}

fn no_such_mail(web: &Web) -> Response {
    let values = context! {
        heading => "No such email",
        text => "The inbox starts empty each time that the program starts.",
        action => context! { href => "/", label => "Go to the inbox" },
    };
    web.pages.page(StatusCode::NOT_FOUND, "notice.html", values)
}
