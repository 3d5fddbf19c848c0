use tonic::Code;
use usher_proto::{
    account::v1::{
        Account, AccountState, BatchGetAccountsRequest, CloseAccountRequest, InvitationState,
        ReopenAccountRequest,
    },
    event::v1::event::Payload,
};
use uuid::Uuid;

use crate::support::{
    PASSWORD, Service, assert_invalid, assert_refused, new_account, update_account,
};

impl Service {
    pub async fn close(&mut self, account: &Account) -> Account {
        let request = CloseAccountRequest {
            organization_id: account.organization_id.clone(),
            account_id: account.account_id.clone(),
            reason: "moved away".to_owned(),
            ..Default::default()
        };
        let response = self.accounts.close_account(request).await.unwrap();
        response.into_inner().account.unwrap()
    }

    pub async fn reopen(&mut self, account: &Account) -> Result<Account, tonic::Status> {
        let request = ReopenAccountRequest {
            organization_id: account.organization_id.clone(),
            account_id: account.account_id.clone(),
            ..Default::default()
        };
        let response = self.accounts.reopen_account(request).await?;
        Ok(response.into_inner().account.unwrap())
    }
}

#[tokio::test]
async fn a_closed_account_has_no_invitation_and_no_login() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let invited = service
        .create(new_account(&organization, "Ann", "Lee", "ann@example.org"))
        .await;
    let link = service.next_link().await;
    let closed = service.close(&invited).await;
    assert_eq!(closed.state(), AccountState::Closed);
    assert_ne!(closed.etag, invited.etag);
    let invitation = closed.last_invitation.clone().unwrap();
    assert_eq!(invitation.state(), InvitationState::Revoked);
    assert!(matches!(
        service.next_event().await.payload,
        Some(Payload::InvitationRevoked(_))
    ));
    let result = service.activate(&link.token, PASSWORD).await;
    assert_refused(result, Code::FailedPrecondition, "TOKEN_REVOKED", &[]);

    let active = service
        .create(new_account(&organization, "Bo", "Diaz", "bo@example.org"))
        .await;
    let link = service.next_link().await;
    service.activate(&link.token, PASSWORD).await.unwrap();
    service.close(&active).await;
    let login = service
        .authenticate(&organization, "bo@example.org", PASSWORD)
        .await
        .unwrap();
    assert_eq!(login.account_id, "");
    let reopened = service.reopen(&active).await.unwrap();
    assert_eq!(reopened.state(), AccountState::Active);
}

#[tokio::test]
async fn closing_and_opening_twice_changes_nothing_the_second_time() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let account = service
        .create(new_account(&organization, "Ann", "Lee", ""))
        .await;
    let closed = service.close(&account).await;
    assert_eq!(service.close(&account).await, closed);
    let reopened = service.reopen(&account).await.unwrap();
    assert_eq!(reopened.state(), AccountState::Managed);
    assert_eq!(service.reopen(&account).await.unwrap(), reopened);
}

#[tokio::test]
async fn the_email_of_a_closed_account_is_free_and_stops_its_reopening() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let first = service
        .create(new_account(&organization, "Ann", "Lee", "ann@example.org"))
        .await;
    service.close(&first).await;
    let second = service
        .create(new_account(&organization, "Bo", "Diaz", "ANN@example.org"))
        .await;
    let result = service.reopen(&first).await;
    let refused = assert_refused(result, Code::AlreadyExists, "EMAIL_IN_ORGANIZATION", &[]);
    let named = refused.details.resource_info().unwrap();
    assert_eq!(named.resource_name, second.account_id);
    assert!(
        refused.message.contains("with UpdateAccount first"),
        "{}",
        refused.message
    );
}

#[tokio::test]
async fn many_accounts_are_read_at_once_in_the_order_asked_for() {
    let mut service = Service::start().await;
    let (organization, other) = (service.organization().await, service.organization().await);
    let ann = service
        .create(new_account(&organization, "Ann", "Lee", ""))
        .await;
    let bo = service
        .create(new_account(&organization, "Bo", "Diaz", ""))
        .await;
    let foreign = service.create(new_account(&other, "Cy", "Fox", "")).await;
    let made_up = Uuid::now_v7().to_string();
    let asked = [
        &bo.account_id.to_uppercase(),
        &foreign.account_id,
        &ann.account_id,
        &made_up,
        &bo.account_id,
    ];
    let request = BatchGetAccountsRequest {
        organization_id: organization.clone(),
        account_ids: asked.map(String::clone).to_vec(),
    };
    let response = service.accounts.batch_get_accounts(request).await.unwrap();
    let response = response.into_inner();
    assert_eq!(response.accounts, [bo, ann]);
    // Another organization's account looks like none.
    assert_eq!(response.missing_account_ids, [foreign.account_id, made_up]);

    for account_ids in [Vec::new(), vec![Uuid::nil().to_string(); 501]] {
        let request = BatchGetAccountsRequest {
            organization_id: organization.clone(),
            account_ids,
        };
        let result = service.accounts.batch_get_accounts(request).await;
        assert_invalid(result, &["account_ids"]);
    }
}

#[tokio::test]
async fn the_email_of_a_client_is_their_own_while_the_account_is_closed() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let account = service.activated(&organization).await;
    service.close(&account).await;
    let new = Account {
        email: Some("other@example.org".to_owned()),
        ..Default::default()
    };
    let request = update_account(&account, &["email"], new);
    let result = service.accounts.update_account(request).await;
    assert_refused(
        result,
        Code::FailedPrecondition,
        "EMAIL_OWNED_BY_CLIENT",
        &[],
    );
}
