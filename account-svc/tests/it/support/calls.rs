//! Calls, most of which must be accepted.

use std::time::Duration;

use prost::Message as _;
use tokio::time::Instant;
use tonic::Status;
use tonic_types::pb;
use usher_proto::account::v1::{
    Account, ActivateAccountRequest, ActivateAccountResponse, AuthenticateRequest,
    AuthenticateResponse, CheckDuplicatesRequest, CreateAccountRequest, CreateOrganizationRequest,
    DuplicateReport, GetAccountRequest, GetInvitationRequest, InspectTokenRequest,
    InspectTokenResponse, Invitation, InvitationState, ListInvitationsRequest, Organization,
    RevokeInvitationRequest, SendInvitationRequest, UpdateAccountRequest,
    UpdateOrganizationRequest, send_invitation_result::Outcome,
};
use uuid::Uuid;

use super::{PASSWORD, PATIENCE, Service, new_account, send_invitation};

impl Service {
    /// Creates an organization and answers its id.
    pub async fn organization(&mut self) -> String {
        let slug = format!("o-{}", Uuid::now_v7().simple());
        let request = CreateOrganizationRequest {
            organization: Some(Organization {
                slug,
                display_name: "Acme".to_owned(),
                portal_url: "https://portal.acme.example".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let response = self
            .organizations
            .create_organization(request)
            .await
            .unwrap();
        response.into_inner().organization.unwrap().organization_id
    }

    /// Creates an account that must be accepted.
    pub async fn create(&mut self, request: CreateAccountRequest) -> Account {
        let response = self.accounts.create_account(request).await.unwrap();
        response.into_inner().account.unwrap()
    }

    /// Creates an account, also when there are accounts of similar name.
    pub async fn create_anyway(&mut self, request: CreateAccountRequest) -> Account {
        match self.accounts.create_account(request.clone()).await {
            Ok(response) => response.into_inner().account.unwrap(),
            Err(status) => {
                let acknowledged = CreateAccountRequest {
                    duplicate_acknowledgement: report(Err::<(), _>(status)).acknowledgement,
                    ..request
                };
                self.create(acknowledged).await
            }
        }
    }

    /// Checks for duplicates.
    pub async fn check(&mut self, request: CheckDuplicatesRequest) -> DuplicateReport {
        let response = self.accounts.check_duplicates(request).await.unwrap();
        response.into_inner().report.unwrap()
    }

    /// Changes an account in a way that must be accepted.
    pub async fn update(&mut self, request: UpdateAccountRequest) -> Account {
        let response = self.accounts.update_account(request).await.unwrap();
        response.into_inner().account.unwrap()
    }

    /// Changes an organization in a way that must be accepted.
    pub async fn update_organization(
        &mut self,
        request: UpdateOrganizationRequest,
    ) -> Organization {
        let response = self.organizations.update_organization(request).await;
        response.unwrap().into_inner().organization.unwrap()
    }

    /// Creates Ann Lee's account in an organization, and takes it over with [`PASSWORD`]: `ann@example.org`
    /// can log in.
    pub async fn activated(&mut self, organization_id: &str) -> Account {
        let request = new_account(organization_id, "Ann", "Lee", "ann@example.org");
        let account = self.create(request).await;
        let link = self.next_link().await;
        self.activate(&link.token, PASSWORD).await.unwrap();
        self.account(organization_id, &account.account_id).await
    }

    /// Reads an account.
    pub async fn account(&mut self, organization_id: &str, account_id: &str) -> Account {
        let request = GetAccountRequest {
            organization_id: organization_id.to_owned(),
            account_id: account_id.to_owned(),
        };
        let response = self.accounts.get_account(request).await.unwrap();
        response.into_inner().account.unwrap()
    }

    /// Sends an invitation that must be accepted.
    pub async fn invite(&mut self, account: &Account) -> Invitation {
        self.send(send_invitation(account)).await.0
    }

    /// As [`Self::invite`]; answers the invitation, and whether it was waiting already.
    pub async fn send(&self, request: SendInvitationRequest) -> (Invitation, bool) {
        let response = self.invitations.clone().send_invitation(request).await;
        let results = response.unwrap().into_inner().results;
        let [result] = &results[..] else {
            panic!("one account, one result");
        };
        match result.outcome.clone() {
            Some(Outcome::Invitation(invitation)) => (invitation, result.already_waiting),
            other => panic!("not invited: {other:?}"),
        }
    }

    /// Revokes an invitation.
    pub async fn revoke(&self, invitation: &Invitation) -> Result<Invitation, Status> {
        let request = RevokeInvitationRequest {
            organization_id: invitation.organization_id.clone(),
            invitation_id: invitation.invitation_id.clone(),
            ..Default::default()
        };
        let response = self.invitations.clone().revoke_invitation(request).await?;
        Ok(response.into_inner().invitation.unwrap())
    }

    /// The invitations of an account, newest first.
    pub async fn invitations_of(&self, account: &Account) -> Vec<Invitation> {
        let request = ListInvitationsRequest {
            organization_id: account.organization_id.clone(),
            account_id: account.account_id.clone(),
            ..Default::default()
        };
        let response = self.invitations.clone().list_invitations(request).await;
        response.unwrap().into_inner().invitations
    }

    /// Reads an invitation.
    pub async fn invitation(&mut self, organization_id: &str, invitation_id: &str) -> Invitation {
        let request = GetInvitationRequest {
            organization_id: organization_id.to_owned(),
            invitation_id: invitation_id.to_owned(),
        };
        let response = self.invitations.get_invitation(request).await.unwrap();
        response.into_inner().invitation.unwrap()
    }

    /// Waits until an invitation is in `state`.
    pub async fn invitation_in(
        &mut self,
        invitation: &Invitation,
        state: InvitationState,
    ) -> Invitation {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = self
                .invitation(&invitation.organization_id, &invitation.invitation_id)
                .await;
            if now.state() == state {
                return now;
            }
            assert!(Instant::now() < deadline, "not {state:?}: {now:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Follows a link, with a password.
    pub async fn activate(
        &self,
        token: &str,
        password: &str,
    ) -> Result<ActivateAccountResponse, Status> {
        let request = ActivateAccountRequest {
            token: token.to_owned(),
            password: password.to_owned(),
            ..Default::default()
        };
        let response = self.activation.clone().activate_account(request).await?;
        Ok(response.into_inner())
    }

    /// Opens a link, without using it.
    pub async fn inspect(&self, token: &str) -> Result<InspectTokenResponse, Status> {
        let request = InspectTokenRequest {
            token: token.to_owned(),
        };
        let response = self.activation.clone().inspect_token(request).await?;
        Ok(response.into_inner())
    }

    /// Logs in.
    pub async fn authenticate(
        &self,
        organization_id: &str,
        email: &str,
        password: &str,
    ) -> Result<AuthenticateResponse, Status> {
        let request = AuthenticateRequest {
            organization_id: organization_id.to_owned(),
            email: email.to_owned(),
            password: password.to_owned(),
            ..Default::default()
        };
        let response = self.activation.clone().authenticate(request).await?;
        Ok(response.into_inner())
    }
}

/// The report that a refusal carries.
pub fn report<T: std::fmt::Debug>(result: Result<T, Status>) -> DuplicateReport {
    let status = result.expect_err("a refusal");
    let status = pb::Status::decode(status.details()).unwrap();
    let detail = status.details.iter().find(|detail| {
        detail
            .type_url
            .ends_with("usher.account.v1.DuplicateReport")
    });
    let detail = detail.unwrap_or_else(|| panic!("no report: {status:?}"));
    DuplicateReport::decode(detail.value.as_slice()).unwrap()
}
