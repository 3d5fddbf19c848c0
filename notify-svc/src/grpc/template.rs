//! `usher.notify.v1.TemplateService`.

use tonic::{Request, Response, Status};
use usher_proto::notify::v1::{
    self as proto, PreviewTemplateRequest, PreviewTemplateResponse, PreviewValues,
    template_service_server::TemplateService,
};
use usher_runtime::{call::Call, fields::FieldParser, timestamp};

use super::Service;
use crate::{domain::MailKind, render::Values, use_cases::templates};

/// Longest text of a preview, in bytes.
const MAX_TEXT: usize = 2_000;

#[tonic::async_trait]
impl TemplateService for Service {
    async fn preview_template(
        &self,
        request: Request<PreviewTemplateRequest>,
    ) -> Result<Response<PreviewTemplateResponse>, Status> {
        let (_, mut fields, request) = Call::open(request)?;
        let kind = fields.take("kind", decode_kind(request.kind));
        if request.locale.is_empty() {
            fields.refuse("locale", "required: a language, for example fr-CA");
        }
        let values = decode_values(&mut fields, request.values.unwrap_or_default());
        let (kind,) = fields.finish((kind,))?;
        let rendered = templates::preview(&self.renderer, kind, &request.locale, values)?;
        Ok(Response::new(PreviewTemplateResponse {
            subject: rendered.subject,
            html: rendered.html,
            text: rendered.text,
            locale: rendered.locale,
        }))
    }
}

/// `None` for a kind that has no template yet.
fn decode_kind(kind: i32) -> Result<Option<MailKind>, &'static str> {
    match proto::TemplateKind::try_from(kind) {
        Ok(proto::TemplateKind::Activation) => Ok(Some(MailKind::Activation)),
        Ok(proto::TemplateKind::ShareRequest) => Ok(Some(MailKind::ShareRequest)),
        Ok(
            proto::TemplateKind::PasswordReset
            | proto::TemplateKind::EmailVerification
            | proto::TemplateKind::AlreadySignedUp
            | proto::TemplateKind::PasswordChanged,
        ) => Ok(None),
        Ok(proto::TemplateKind::Unspecified) | Err(_) => Err("required: a kind of template"),
    }
}

/// Every value that is empty gets a sample.
fn decode_values(fields: &mut FieldParser, given: PreviewValues) -> Values {
    let sample = Values::sample();
    let mut text = |field: &str, value: String| {
        if value.len() > MAX_TEXT {
            fields.refuse(field, format!("at most {MAX_TEXT} bytes"));
        }
        Some(value).filter(|value| !value.is_empty())
    };
    let given_name = text("values.given_name", given.given_name);
    let family_name = text("values.family_name", given.family_name);
    let organization_name = text("values.organization_name", given.organization_name);
    let portal_url = text("values.portal_url", given.portal_url);
    let logo_url = text("values.logo_url", given.logo_url);
    let color = text("values.color", given.color);
    let form_id = text("values.form_id", given.form_id);
    let expire_time = given.expire_time.and_then(|time| {
        fields.take(
            "values.expire_time",
            timestamp::decode(time).ok_or("out of range: a time of the years 1 to 9999"),
        )
    });
    let portal_url = portal_url.map(|url| url.trim_end_matches('/').to_owned());
    Values {
        given_name: given_name.unwrap_or(sample.given_name),
        family_name: family_name.unwrap_or(sample.family_name),
        organization_name: organization_name.unwrap_or(sample.organization_name),
        portal_url: portal_url.unwrap_or(sample.portal_url),
        link: sample.link,
        logo_url: logo_url.or(sample.logo_url),
        color: color.or(sample.color),
        expire_time: expire_time.unwrap_or(sample.expire_time),
        form_id: form_id.or(sample.form_id),
    }
}
