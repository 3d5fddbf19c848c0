use futures::future::join_all;
use tonic::Code;
use usher_proto::account::v1::{
    AccountState, CreateAccountRequest, CreateAccountResponse, Date, ListAccountsRequest,
    Organization, OrganizationSettings, SendInvitationRequest, send_invitation_request::Target,
};
use uuid::Uuid;

use crate::support::{PASSWORD, Service, assert_refused, new_account, update_organization};

#[tokio::test]
async fn a_repeated_create_gets_the_same_answer_and_creates_once() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let request = CreateAccountRequest {
        request_id: Uuid::now_v7().to_string(),
        ..new_account(&organization, "Ann", "Lee", "ann@example.org")
    };
    // At the same moment, and later.
    let answers = join_all((0..8).map(|_| {
        let mut client = service.accounts.clone();
        let request = request.clone();
        async move { client.create_account(request).await.unwrap().into_inner() }
    }))
    .await;
    let link = service.next_link().await;
    service.activate(&link.token, PASSWORD).await.unwrap();
    let later = service
        .accounts
        .create_account(request)
        .await
        .unwrap()
        .into_inner();
    for answer in &answers {
        assert_eq!(*answer, later);
    }
    // The answer of then, although the account is active by now.
    assert_eq!(later.account.unwrap().state(), AccountState::Invited);
    let request = ListAccountsRequest {
        organization_id: organization,
        ..Default::default()
    };
    let listed = service
        .accounts
        .list_accounts(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(listed.accounts.len(), 1);
}

#[tokio::test]
async fn a_request_with_a_map_is_the_same_when_repeated() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let mut request = CreateAccountRequest {
        request_id: Uuid::now_v7().to_string(),
        ..new_account(&organization, "Ann", "Lee", "")
    };
    request.account.as_mut().unwrap().attributes = (0..64)
        .map(|key| (format!("key {key}"), key.to_string()))
        .collect();
    let first = service.create(request.clone()).await;
    for _ in 0..10 {
        assert_eq!(service.create(request.clone()).await, first);
    }
}

#[tokio::test]
async fn a_request_id_with_another_request_is_refused() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let request_id = Uuid::now_v7().to_string();
    let account = service
        .create(CreateAccountRequest {
            request_id: request_id.clone(),
            ..new_account(&organization, "Ann", "Lee", "ann@example.org")
        })
        .await;
    let other = CreateAccountRequest {
        request_id: request_id.clone(),
        ..new_account(&organization, "Bo", "Diaz", "bo@example.org")
    };
    let result = service.accounts.create_account(other).await;
    assert_refused(result, Code::AlreadyExists, "REQUEST_ID_REUSED", &[]);
    let other_call = SendInvitationRequest {
        organization_id: organization,
        target: Some(Target::AccountId(account.account_id)),
        request_id,
        ..Default::default()
    };
    let result = service.invitations.send_invitation(other_call).await;
    assert_refused(result, Code::AlreadyExists, "REQUEST_ID_REUSED", &[]);
}

#[tokio::test]
async fn an_error_is_not_stored() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let mut request = CreateAccountRequest {
        request_id: Uuid::now_v7().to_string(),
        ..new_account(&organization, "Ann", "Lee", "ann@example.org")
    };
    request.account.as_mut().unwrap().birth_date = Some(Date {
        year: 2000,
        month: 1,
        day: 1,
    });
    let minimum_age = |minimum_age| {
        let new = Organization {
            settings: Some(OrganizationSettings {
                minimum_age: Some(minimum_age),
                ..Default::default()
            }),
            ..Default::default()
        };
        update_organization(&organization, &["settings.minimum_age"], new)
    };
    // Refused by a rule, in the transaction that has taken the request id.
    service.update_organization(minimum_age(120)).await;
    let result = service.accounts.create_account(request.clone()).await;
    let fields = ["account.birth_date"];
    assert_refused(result, Code::InvalidArgument, "HOLDER_UNDER_AGE", &fields);
    service.update_organization(minimum_age(18)).await;
    service.create(request).await;
}

#[tokio::test]
async fn a_request_id_in_capitals_is_the_same() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let request_id = Uuid::now_v7().to_string();
    let request = |request_id: String| CreateAccountRequest {
        request_id,
        ..new_account(&organization, "Ann", "Lee", "ann@example.org")
    };
    let first = service.create(request(request_id.clone())).await;
    let again = service.create(request(request_id.to_uppercase())).await;
    assert_eq!(again, first);
}

#[tokio::test]
async fn what_is_stored_is_the_response_message() {
    // A later version adds fields to messages, never required ones: it can read what this one stored.
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let request = CreateAccountRequest {
        request_id: Uuid::now_v7().to_string(),
        ..new_account(&organization, "Ann", "Lee", "")
    };
    let created = service.create(request).await;
    let stored: Vec<u8> = sqlx::query_scalar("SELECT response FROM stored_responses")
        .fetch_one(&mut service.admin().await)
        .await
        .unwrap();
    let stored: CreateAccountResponse = prost::Message::decode(stored.as_slice()).unwrap();
    assert_eq!(stored.account, Some(created));
}
