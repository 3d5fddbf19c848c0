//! An organization to try things out with, and the commands for it.

use anyhow::Context as _;
use prost_types::FieldMask;
use tonic::transport::Channel;
use usher_proto::account::v1::organization_service_client::OrganizationServiceClient;
use usher_proto::account::v1::{
    Brand, CreateOrganizationRequest, ListOrganizationsRequest, Organization,
    UpdateOrganizationRequest,
};

use crate::console;
use crate::listeners::Addresses;

const SLUG: &str = "demo";

/// The demo organization: made at the first start. Its links lead to the web page of this run.
///
/// # Errors
///
/// If account-svc refuses.
pub(crate) async fn organization(channel: Channel, portal_url: &str) -> anyhow::Result<String> {
    let mut organizations = OrganizationServiceClient::new(channel);
    let known = find(&mut organizations).await?;
    let Some(known) = known else {
        let organization = Organization {
            slug: SLUG.to_owned(),
            display_name: "Harbour Clinic".to_owned(),
            default_locale: "en".to_owned(),
            portal_url: portal_url.to_owned(),
            brand: Some(Brand {
                color: "#0b6e4f".to_owned(),
                ..Brand::default()
            }),
            ..Organization::default()
        };
        let request = CreateOrganizationRequest {
            organization: Some(organization),
            ..CreateOrganizationRequest::default()
        };
        let created = organizations.create_organization(request).await?;
        let created = created.into_inner().organization;
        return Ok(created
            .context("no organization in the answer")?
            .organization_id);
    };
    let organization_id = known.organization_id.clone();
    if known.portal_url != portal_url {
        // An earlier run had its web page on another port.
        let request = UpdateOrganizationRequest {
            organization: Some(Organization {
                portal_url: portal_url.to_owned(),
                ..known
            }),
            update_mask: Some(FieldMask {
                paths: vec!["portal_url".to_owned()],
            }),
            ..UpdateOrganizationRequest::default()
        };
        organizations.update_organization(request).await?;
    }
    Ok(organization_id)
}

async fn find(
    organizations: &mut OrganizationServiceClient<Channel>,
) -> anyhow::Result<Option<Organization>> {
    let mut page_token = String::new();
    loop {
        let request = ListOrganizationsRequest {
            page_size: 500,
            page_token,
        };
        let page = organizations
            .list_organizations(request)
            .await?
            .into_inner();
        if let Some(found) = page.organizations.into_iter().find(|o| o.slug == SLUG) {
            return Ok(Some(found));
        }
        if page.next_page_token.is_empty() {
            return Ok(None);
        }
        page_token = page.next_page_token;
    }
}

/// Prints what to try, ready to be pasted. `has_inbox` says whether emails stay on the web page.
pub(crate) fn print_commands(organization_id: &str, addresses: &Addresses, has_inbox: bool) {
    let Addresses {
        account,
        notify,
        portal_url,
        ..
    } = addresses;
    let client = format!(
        r#"{{"organization_id": "{organization_id}", "account": {{"given_name": "Ada", "family_name": "Lovelace", "email": "ada@example.org"}}}}"#
    );
    let emails = if has_inbox {
        "is on the web page"
    } else {
        "goes to the relay of SMTP_URL"
    };
    let organization = format!(r#"{{"organization_id": "{organization_id}"}}"#);
    console::line(&format!(
        "
Usher is running. Everything listens on this machine only, and callers are not authenticated: whoever
reaches the ports may do everything.

  Web page      {portal_url}
  account-svc   {account} (gRPC)
  notify-svc    {notify} (gRPC)
  Organization  {organization_id} (slug `{SLUG}`)

Create an account for a client; she is invited by email:

  grpcurl -plaintext -d '{client}' {account} usher.account.v1.AccountService/CreateAccount

The email {emails}. Follow its link, choose a password; the account is ACTIVE then:

  grpcurl -plaintext -d '{organization}' {account} usher.account.v1.AccountService/ListAccounts

What became of the email:

  grpcurl -plaintext -d '{organization}' {notify} usher.notify.v1.DeliveryService/ListDeliveries

Without grpcurl, the same with buf (https://buf.build/docs/cli):

  buf curl --protocol grpc --http2-prior-knowledge -d '{client}' http://{account}/usher.account.v1.AccountService/CreateAccount

Ctrl-C stops everything."
    ));
}
