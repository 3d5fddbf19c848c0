//! `usher.account.v1.OrganizationService`.

use prost::Message as _;
use tonic::{Request, Response, Status};
use usher_proto::account::v1::{
    CreateOrganizationRequest, CreateOrganizationResponse, GetOrganizationRequest,
    GetOrganizationResponse, ListOrganizationsRequest, ListOrganizationsResponse,
    UpdateOrganizationRequest, UpdateOrganizationResponse,
    organization_service_server::OrganizationService,
};
use usher_runtime::fields::{FieldParser, parse_uuid};

use usher_runtime::page::Page;

use super::{Service, decode, encode};
use crate::{
    domain::organization::{self, OrganizationProfile},
    error::Error,
    organizations,
};

/// What `UpdateOrganization` can change.
const PATHS: [&str; 13] = [
    "display_name",
    "default_locale",
    "portal_url",
    "allowed_return_origins",
    "sender_name",
    "reply_to",
    "brand",
    "settings",
    "settings.minimum_age",
    "settings.invitation_lifetime",
    "settings.reinvite_after",
    "settings.link_prompt_lifetime",
    "settings.reminders",
];

#[tonic::async_trait]
impl OrganizationService for Service {
    async fn create_organization(
        &self,
        request: Request<CreateOrganizationRequest>,
    ) -> Result<Response<CreateOrganizationResponse>, Status> {
        let request = request.into_inner();
        let mut parser = FieldParser::default();
        let key = decode::request_key(
            &mut parser,
            &request.request_id,
            "CreateOrganization",
            &request.encode_to_vec(),
        );
        let message = request.organization.unwrap_or_default();
        let slug = parser.take("organization.slug", organization::slug(&message.slug));
        let profile = decode::organization_profile(
            &mut parser,
            message,
            nothing_yet(),
            self.context.rules.links,
            |_| true,
        );
        let (slug,) = parser.finish((slug,)).map_err(Error::from)?;
        let organization =
            organizations::create(&self.context, &slug, &profile, key.as_ref()).await?;
        Ok(Response::new(CreateOrganizationResponse {
            organization: Some(encode::organization(organization)),
        }))
    }

    async fn get_organization(
        &self,
        request: Request<GetOrganizationRequest>,
    ) -> Result<Response<GetOrganizationResponse>, Status> {
        let request = request.into_inner();
        let [organization_id] = decode::ids([("organization_id", &request.organization_id)])?;
        let organization = organizations::get(&self.context, organization_id).await?;
        Ok(Response::new(GetOrganizationResponse {
            organization: Some(encode::organization(organization)),
        }))
    }

    async fn update_organization(
        &self,
        request: Request<UpdateOrganizationRequest>,
    ) -> Result<Response<UpdateOrganizationResponse>, Status> {
        let request = request.into_inner();
        let mut parser = FieldParser::default();
        let key = decode::request_key(
            &mut parser,
            &request.request_id,
            "UpdateOrganization",
            &request.encode_to_vec(),
        );
        let message = request.organization.unwrap_or_default();
        let version = decode::etag(&message.etag)?;
        let organization_id = parser.take(
            "organization.organization_id",
            parse_uuid(&message.organization_id),
        );
        let paths = decode::update_mask(&mut parser, request.update_mask, &PATHS);
        let wanted = |field: &str| paths.iter().any(|path| path == field);
        let links = self.context.rules.links;
        // Once to refuse what is wrong before anything is locked, once over what the organization is.
        decode::organization_profile(&mut parser, message.clone(), nothing_yet(), links, wanted);
        let (organization_id,) = parser.finish((organization_id,)).map_err(Error::from)?;
        let change = |base| {
            let mut parser = FieldParser::default();
            decode::organization_profile(&mut parser, message, base, links, wanted)
        };
        let organization = organizations::update(
            &self.context,
            organization_id,
            version,
            change,
            key.as_ref(),
        )
        .await?;
        Ok(Response::new(UpdateOrganizationResponse {
            organization: Some(encode::organization(organization)),
        }))
    }

    async fn list_organizations(
        &self,
        request: Request<ListOrganizationsRequest>,
    ) -> Result<Response<ListOrganizationsResponse>, Status> {
        let request = request.into_inner();
        let page = Page::parse(
            b"ListOrganizations".to_vec(),
            request.page_size,
            &request.page_token,
        )?;
        let organizations = organizations::list(&self.context, page.after, page.limit()).await?;
        let (organizations, next_page_token) = page.cut(organizations, |row| row.organization_id);
        Ok(Response::new(ListOrganizationsResponse {
            organizations: organizations
                .into_iter()
                .map(encode::organization)
                .collect(),
            next_page_token,
        }))
    }
}

/// What a new organization's fields are put over.
fn nothing_yet() -> OrganizationProfile {
    OrganizationProfile {
        display_name: String::new(),
        default_locale: String::new(),
        portal_url: String::new(),
        allowed_return_origins: Vec::new(),
        sender_name: String::new(),
        reply_to: String::new(),
        logo_url: String::new(),
        color: String::new(),
        minimum_age: 0,
        invitation_lifetime_seconds: 0,
        reinvite_after_seconds: 0,
        link_prompt_lifetime_seconds: 0,
        reminders: Vec::new(),
    }
}
