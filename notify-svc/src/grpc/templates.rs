//! `usher.notify.v1.TemplateService`.

use std::sync::Arc;

use time::OffsetDateTime;
use tonic::{Request, Response, Status};
use usher_proto::notify::v1::{
    self as pb, PreviewTemplateRequest, PreviewTemplateResponse, PreviewValues,
    template_service_server::TemplateService,
};
use usher_runtime::fields::{FieldParser, InvalidFields, parse_uuid};

use super::status::Error;
use crate::{
    domain::MailKind,
    render::{Rendered, Renderer, TemplateKind, Values},
};

/// Longest text of a preview.
const MAX_TEXT: usize = 2_000;

/// A link that leads nowhere.
const SAMPLE_TOKEN: &str = "sample-token-of-a-preview";

/// Shows what emails look like.
pub(super) struct Templates {
    pub renderer: Arc<Renderer>,
}

#[tonic::async_trait]
impl TemplateService for Templates {
    async fn preview_template(
        &self,
        request: Request<PreviewTemplateRequest>,
    ) -> Result<Response<PreviewTemplateResponse>, Status> {
        let rendered = self.preview(request.into_inner())?;
        Ok(Response::new(PreviewTemplateResponse {
            subject: rendered.subject,
            html: rendered.html,
            text: rendered.text,
            locale: rendered.locale,
        }))
    }
}

impl Templates {
    fn preview(&self, request: PreviewTemplateRequest) -> Result<Rendered, Error> {
        let preview = decode(request)?;
        if Renderer::match_locale(&preview.locale).is_none() {
            return Err(Error::TemplateNotFound);
        }
        let kind = preview.kind.ok_or(Error::TemplateNotFound)?;
        let mut values = preview.values;
        values.link = kind.link(&values.portal_url, SAMPLE_TOKEN);
        Ok(self
            .renderer
            .render(TemplateKind::from(kind), &preview.locale, &values)?)
    }
}

struct Preview {
    /// `None` for a kind that has no template yet.
    kind: Option<MailKind>,
    locale: String,
    values: Values,
}

fn decode(request: PreviewTemplateRequest) -> Result<Preview, InvalidFields> {
    let mut fields = FieldParser::default();
    fields.take("organization_id", parse_uuid(&request.organization_id));
    let kind = fields.take("kind", decode_kind(request.kind));
    if request.locale.is_empty() {
        fields.refuse("locale", "required: a language, for example fr-CA");
    }
    let values = decode_values(&mut fields, request.values.unwrap_or_default());
    let (kind,) = fields.finish((kind,))?;
    Ok(Preview {
        kind,
        locale: request.locale,
        values,
    })
}

fn decode_kind(kind: i32) -> Result<Option<MailKind>, &'static str> {
    match pb::TemplateKind::try_from(kind) {
        Ok(pb::TemplateKind::Activation) => Ok(Some(MailKind::Activation)),
        Ok(pb::TemplateKind::ShareRequest) => Ok(Some(MailKind::ShareRequest)),
        Ok(
            pb::TemplateKind::PasswordReset
            | pb::TemplateKind::EmailVerification
            | pb::TemplateKind::AlreadySignedUp
            | pb::TemplateKind::PasswordChanged,
        ) => Ok(None),
        Ok(pb::TemplateKind::Unspecified) | Err(_) => Err("required: a kind of template"),
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
            OffsetDateTime::from_unix_timestamp(time.seconds).map_err(|_| "out of range"),
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
