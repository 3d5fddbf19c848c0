//! Requests, each with what a test says about it and defaults for the rest.

use prost_types::FieldMask;
use usher_proto::account::v1::{
    Account, CheckDuplicatesRequest, CreateAccountRequest, Organization, SendInvitationRequest,
    UpdateAccountRequest, UpdateOrganizationRequest, send_invitation_request::Target,
};

/// A request for an account with a name and, if not empty, an email.
pub fn new_account(
    organization_id: &str,
    given: &str,
    family: &str,
    email: &str,
) -> CreateAccountRequest {
    CreateAccountRequest {
        organization_id: organization_id.to_owned(),
        account: Some(Account {
            given_name: given.to_owned(),
            family_name: family.to_owned(),
            email: (!email.is_empty()).then(|| email.to_owned()),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A question for duplicates of a name.
pub fn check_names(organization_id: &str, given: &str, family: &str) -> CheckDuplicatesRequest {
    CheckDuplicatesRequest {
        organization_id: organization_id.to_owned(),
        given_name: given.to_owned(),
        family_name: family.to_owned(),
        ..Default::default()
    }
}

/// A request that gives the fields `paths` of an account the values of `new`.
pub fn update_account(account: &Account, paths: &[&str], new: Account) -> UpdateAccountRequest {
    UpdateAccountRequest {
        organization_id: account.organization_id.clone(),
        account: Some(Account {
            account_id: account.account_id.clone(),
            ..new
        }),
        update_mask: Some(mask(paths)),
        ..Default::default()
    }
}

/// A request that gives the fields `paths` of an organization the values of `new`.
pub fn update_organization(
    organization_id: &str,
    paths: &[&str],
    new: Organization,
) -> UpdateOrganizationRequest {
    UpdateOrganizationRequest {
        organization: Some(Organization {
            organization_id: organization_id.to_owned(),
            ..new
        }),
        update_mask: Some(mask(paths)),
        ..Default::default()
    }
}

/// A request to invite the client of an account.
pub fn send_invitation(account: &Account) -> SendInvitationRequest {
    SendInvitationRequest {
        organization_id: account.organization_id.clone(),
        target: Some(Target::AccountId(account.account_id.clone())),
        ..Default::default()
    }
}

fn mask(paths: &[&str]) -> FieldMask {
    FieldMask {
        paths: paths.iter().map(|&path| path.to_owned()).collect(),
    }
}
