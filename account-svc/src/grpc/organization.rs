//! `usher.account.v1.OrganizationService`.

use tonic::{Request, Response, Status};
use usher_proto::account::v1::{
    CreateOrganizationRequest, CreateOrganizationResponse, GetOrganizationRequest,
    GetOrganizationResponse, ListOrganizationsRequest, ListOrganizationsResponse,
    UpdateOrganizationRequest, UpdateOrganizationResponse,
    organization_service_server::OrganizationService,
};
use usher_runtime::{call::Call, page::Page};

use super::{Service, decode, encode};
use crate::{domain::organization, use_cases::organizations};

/// What `UpdateOrganization` can change.
const PATHS: [&str; 16] = [
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
    "settings.time_zone",
    "settings.front_desk_duplicates",
    "settings.import_duplicates",
];

#[tonic::async_trait]
impl OrganizationService for Service {
    async fn create_organization(
        &self,
        request: Request<CreateOrganizationRequest>,
    ) -> Result<Response<CreateOrganizationResponse>, Status> {
        let (call, mut fields, request) = Call::open(request)?;
        let message = request.organization.unwrap_or_default();
        let slug = fields.take("organization.slug", organization::slug(&message.slug));
        let links = &self.context.rules.links;
        let profile =
            decode::organization_change(&mut fields, message, links, |_| true).into_profile();
        let (slug, profile) = fields.finish((slug, profile))?;
        self.context
            .store
            .change(&call, async |change| {
                let organization =
                    organizations::create(&self.context, change, &slug, &profile).await?;
                Ok(CreateOrganizationResponse {
                    organization: Some(encode::organization(organization)),
                })
            })
            .await
    }

    async fn get_organization(
        &self,
        request: Request<GetOrganizationRequest>,
    ) -> Result<Response<GetOrganizationResponse>, Status> {
        let (call, fields, _) = Call::open(request)?;
        fields.finish(())?;
        let organization = self
            .context
            .store
            .read(&call, async |tx| {
                organizations::read(tx, call.organization_id).await
            })
            .await?;
        Ok(Response::new(GetOrganizationResponse {
            organization: Some(encode::organization(organization)),
        }))
    }

    async fn update_organization(
        &self,
        request: Request<UpdateOrganizationRequest>,
    ) -> Result<Response<UpdateOrganizationResponse>, Status> {
        let (call, mut fields, request) = Call::open(request)?;
        let message = request.organization.unwrap_or_default();
        let version = decode::etag(&mut fields, "organization.etag", &message.etag);
        let paths = fields.update_mask(request.update_mask, &PATHS);
        let links = &self.context.rules.links;
        let new = decode::organization_change(&mut fields, message, links, |field| {
            paths.iter().any(|path| path == field)
        });
        fields.finish(())?;
        self.context
            .store
            .change(&call, async |change| {
                let organization =
                    organizations::update(&self.context, change, version, new, &paths).await?;
                Ok(UpdateOrganizationResponse {
                    organization: Some(encode::organization(organization)),
                })
            })
            .await
    }

    async fn list_organizations(
        &self,
        request: Request<ListOrganizationsRequest>,
    ) -> Result<Response<ListOrganizationsResponse>, Status> {
        let (call, fields, request) = Call::open(request)?;
        fields.finish(())?;
        let page = Page::parse(&request)?;
        let organizations = self
            .context
            .store
            .read(&call, async |tx| organizations::list(tx, &page).await)
            .await?;
        let (organizations, next_page_token) = page.cut(
            organizations,
            |organization| organization.organization_id,
            encode::organization,
        );
        Ok(Response::new(ListOrganizationsResponse {
            organizations,
            next_page_token,
        }))
    }
}
