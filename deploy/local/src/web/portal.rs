//! A client portal in miniature: what the backend of a real one does with the gRPC API.

use std::sync::Arc;

use axum::Form;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use minijinja::{Value, context};
use serde::Deserialize;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use usher_proto::account::v1::{
    ActivateAccountRequest, AuthenticateRequest, InspectTokenRequest, InspectTokenResponse,
    TokenPurpose, TokenStatus,
};
use uuid::Uuid;

use super::Web;
use crate::readable_time;

/// Where a login comes from: everybody here sits at this machine.
const SOURCE: &str = "127.0.0.1";

/// What a link carries.
#[derive(Deserialize)]
pub(super) struct Link {
    #[serde(default)]
    token: String,
}

/// What the activation form carries.
#[derive(Deserialize)]
pub(super) struct Activation {
    token: String,
    password: String,
    /// Made with the form, so that a second click on the button is answered like the first.
    request_id: String,
}

/// What the login form carries.
#[derive(Deserialize)]
pub(super) struct Login {
    organization_id: String,
    email: String,
    password: String,
}

/// `GET /activate?token=…`: looks at the token, which consumes nothing, and asks for a password.
pub(super) async fn open(State(web): State<Arc<Web>>, Query(link): Query<Link>) -> Response {
    match inspect(&web, &link.token).await {
        Err(status) => refusal(&web, &status),
        Ok(seen) if seen.purpose() == TokenPurpose::ShareRequest => {
            Redirect::to(&format!("/share?token={}", link.token)).into_response()
        }
        Ok(seen) if seen.status() == TokenStatus::Valid => {
            password_form(&web, StatusCode::OK, &seen, &link.token, None)
        }
        Ok(seen) => dead_link(&web, seen.status()),
    }
}

/// `POST /activate`: takes the account over.
pub(super) async fn activate(
    State(web): State<Arc<Web>>,
    Form(form): Form<Activation>,
) -> Response {
    let request = ActivateAccountRequest {
        token: form.token.clone(),
        password: form.password,
        request_id: form.request_id,
        source: SOURCE.to_owned(),
    };
    let status = match web.activation.clone().activate_account(request).await {
        Ok(response) => {
            let active = response.into_inner();
            let values = context! {
                account_id => active.account_id,
                person_id => active.person_id,
                organization_id => active.organization_id,
                email => "",
                problem => (),
            };
            return web.pages.page(StatusCode::OK, "active.html", values);
        }
        Err(status) => status,
    };
    let Some(problem) = password_problem(&status) else {
        return refusal(&web, &status);
    };
    match inspect(&web, &form.token).await {
        Ok(seen) if seen.status() == TokenStatus::Valid => {
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            password_form(&web, status, &seen, &form.token, Some(&problem))
        }
        Ok(seen) => dead_link(&web, seen.status()),
        Err(status) => refusal(&web, &status),
    }
}

/// `GET /share?token=…`: says what the link asks; answering comes in a later version.
pub(super) async fn share(State(web): State<Arc<Web>>, Query(link): Query<Link>) -> Response {
    let seen = match inspect(&web, &link.token).await {
        Ok(seen) => seen,
        Err(status) => return refusal(&web, &status),
    };
    if seen.status() != TokenStatus::Valid {
        return dead_link(&web, seen.status());
    }
    let organization = organization_name(&seen);
    let text = format!(
        "{organization} asks you to share your information. Answering comes in a later version of Usher; \
         until then nothing is shared."
    );
    notice(&web, StatusCode::OK, "A request to share", &text, None)
}

/// `GET /login`.
pub(super) async fn login_form(State(web): State<Arc<Web>>) -> Response {
    let values = context! {
        organization_id => web.organization_id.as_str(),
        email => "",
        problem => (),
    };
    web.pages.page(StatusCode::OK, "login.html", values)
}

/// `POST /login`: checks email and password. A real portal would begin a session now.
pub(super) async fn login(State(web): State<Arc<Web>>, Form(form): Form<Login>) -> Response {
    let request = AuthenticateRequest {
        organization_id: form.organization_id.clone(),
        email: form.email.clone(),
        password: form.password,
        source: SOURCE.to_owned(),
    };
    let (status, problem) = match web.activation.clone().authenticate(request).await {
        // The password is right, but the client has no account here.
        Ok(response) if response.get_ref().account_id.is_empty() => (
            StatusCode::FORBIDDEN,
            "You have no account with this organization.".to_owned(),
        ),
        Ok(response) => {
            let text = match response.into_inner().previous_login_time {
                Some(time) => {
                    let time = readable_time::from_unix(time.seconds);
                    format!("Welcome back. Your last login was on {time}.")
                }
                None => "Welcome. This is your first login.".to_owned(),
            };
            return notice(&web, StatusCode::OK, "Signed in", &text, None);
        }
        Err(status) => match status.code() {
            Code::Unauthenticated | Code::InvalidArgument => (
                StatusCode::UNAUTHORIZED,
                "Email and password do not belong together.".to_owned(),
            ),
            Code::ResourceExhausted => (StatusCode::TOO_MANY_REQUESTS, too_many(&status)),
            _ => return refusal(&web, &status),
        },
    };
    let values = context! {
        organization_id => form.organization_id,
        email => form.email,
        problem,
    };
    web.pages.page(status, "login.html", values)
}

async fn inspect(web: &Web, token: &str) -> Result<InspectTokenResponse, Status> {
    let token = token.to_owned();
    let request = InspectTokenRequest { token };
    let response = web.activation.clone().inspect_token(request).await?;
    Ok(response.into_inner())
}

fn password_form(
    web: &Web,
    status: StatusCode,
    seen: &InspectTokenResponse,
    token: &str,
    problem: Option<&str>,
) -> Response {
    let policy = seen.password_policy.unwrap_or_default();
    let brand = seen.organization.as_ref().and_then(|o| o.brand.as_ref());
    let values = context! {
        organization_name => organization_name(seen),
        logo_url => brand.map(|brand| brand.logo_url.as_str()).filter(|url| !url.is_empty()),
        masked_email => seen.masked_email.as_str(),
        has_login => seen.has_login,
        min_length => policy.min_length,
        max_length => policy.max_length,
        expire_time => seen.expire_time.map(|time| readable_time::from_unix(time.seconds)),
        request_id => Uuid::now_v7().to_string(),
        token,
        problem,
    };
    web.pages.page(status, "activate.html", values)
}

fn organization_name(seen: &InspectTokenResponse) -> &str {
    let organization = seen.organization.as_ref();
    organization.map_or("An organization", |found| &found.display_name)
}

/// Says why a link is of no use any more, before anybody types a password.
fn dead_link(web: &Web, status: TokenStatus) -> Response {
    let (heading, text, action) = match status {
        TokenStatus::Expired => (
            "This link has expired",
            "Ask the organization to send you a new one.",
            None,
        ),
        TokenStatus::Used => (
            "This link was used already",
            "The account is active. Sign in with the password that was chosen.",
            Some(context! { href => "/login", label => "Sign in" }),
        ),
        TokenStatus::Revoked => (
            "This invitation was withdrawn",
            "The organization took it back. Ask there if you think that this is a mistake.",
            None,
        ),
        TokenStatus::Superseded => (
            "There is a newer email",
            "A later email holds the link that works. Look for it in your inbox.",
            Some(context! { href => "/", label => "Go to the inbox" }),
        ),
        TokenStatus::Valid | TokenStatus::Unspecified => (
            "This link cannot be used here",
            "Ask the organization to send you a new one.",
            None,
        ),
    };
    notice(web, StatusCode::GONE, heading, text, action)
}

/// Turns an error of the API into a page: by its reason, which is stable, not by its message.
fn refusal(web: &Web, status: &Status) -> Response {
    match reason(status).as_str() {
        "TOKEN_UNKNOWN" | "FIELD_INVALID" => {
            let heading = "This link is not complete";
            let text = "Open it from the email again, or copy the whole address into the browser.";
            notice(web, StatusCode::NOT_FOUND, heading, text, None)
        }
        "TOKEN_EXPIRED" => dead_link(web, TokenStatus::Expired),
        "TOKEN_USED" => dead_link(web, TokenStatus::Used),
        "TOKEN_REVOKED" => dead_link(web, TokenStatus::Revoked),
        "TOKEN_SUPERSEDED" => dead_link(web, TokenStatus::Superseded),
        "TOO_MANY_ATTEMPTS" => {
            let text = too_many(status);
            notice(
                web,
                StatusCode::TOO_MANY_REQUESTS,
                "Please wait",
                &text,
                None,
            )
        }
        reason => {
            tracing::warn!(reason, code = ?status.code(), "account-svc refused a call of the portal");
            let text = "Nothing was changed. Try again in a moment.";
            let status = StatusCode::SERVICE_UNAVAILABLE;
            notice(web, status, "This does not work right now", text, None)
        }
    }
}

/// What is wrong with the password, in the words of account-svc; `None` if that is not the matter.
fn password_problem(status: &Status) -> Option<String> {
    if reason(status) == "CREDENTIALS_INVALID" {
        return Some("This is not the password of your login.".to_owned());
    }
    let violations = status.get_details_bad_request()?.field_violations;
    let violation = violations
        .into_iter()
        .find(|violation| violation.field == "password")?;
    Some(violation.description)
}

fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.map(|info| info.reason).unwrap_or_default()
}

fn too_many(status: &Status) -> String {
    let delay = status
        .get_details_retry_info()
        .and_then(|info| info.retry_delay);
    match delay {
        Some(delay) => format!(
            "Too many attempts. Try again in {} s.",
            delay.as_secs().max(1)
        ),
        None => "Too many attempts. Try again later.".to_owned(),
    }
}

fn notice(
    web: &Web,
    status: StatusCode,
    heading: &str,
    text: &str,
    action: Option<Value>,
) -> Response {
    let values = context! { heading, text, action };
    web.pages.page(status, "notice.html", values)
}
