//! HTML pages from templates.

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{Html, IntoResponse, Response};
use minijinja::{Environment, UndefinedBehavior, Value};

const TEMPLATES: [(&str, &str); 8] = [
    ("layout.html", include_str!("../../templates/layout.html")),
    ("inbox.html", include_str!("../../templates/inbox.html")),
    ("mail.html", include_str!("../../templates/mail.html")),
    (
        "activate.html",
        include_str!("../../templates/activate.html"),
    ),
    ("active.html", include_str!("../../templates/active.html")),
    ("login.html", include_str!("../../templates/login.html")),
    (
        "login_form.html",
        include_str!("../../templates/login_form.html"),
    ),
    ("notice.html", include_str!("../../templates/notice.html")),
];

/// The compiled pages.
#[derive(Debug)]
pub(super) struct Pages(Environment<'static>);

impl Pages {
    pub(super) fn new() -> Result<Self, minijinja::Error> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_debug(false);
        for (name, source) in TEMPLATES {
            environment.add_template(name, source)?;
        }
        Ok(Self(environment))
    }

    /// Renders a page.
    pub(super) fn page(&self, status: StatusCode, template: &str, values: Value) -> Response {
        let html = self
            .0
            .get_template(template)
            .and_then(|template| template.render(values));
        match html {
            Ok(html) => (status, Html(html)).into_response(),
            Err(error) => {
                tracing::error!(%error, template, "a page could not be rendered");
                (StatusCode::INTERNAL_SERVER_ERROR, "This page is broken.\n").into_response()
            }
        }
    }
}

/// The style sheet.
pub(super) async fn style() -> impl IntoResponse {
    let headers = [(CONTENT_TYPE, "text/css; charset=utf-8")];
    (headers, include_str!("../../templates/style.css"))
}
