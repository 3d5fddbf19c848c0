use std::time::Duration;

use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tonic::{Code, transport::Channel};
use usher_proto::account::v1::{
    Account, AccountFilter, CheckDuplicatesRequest, CreateAccountRequest, CreateGroupRequest, Date,
    GetAccountRequest, ListAccountsRequest, ListInvitationsRequest, Member, SendInvitationRequest,
    group_service_client::GroupServiceClient, send_invitation_request::Target,
};
use uuid::Uuid;

use crate::support::{Service, assert_invalid, assert_refused, new_account};

/// Accounts with one bad field each, by the name of that field.
fn faults() -> Vec<(&'static str, Account)> {
    let ann = || new_account("", "Ann", "Lee", "").account.unwrap();
    let long = "x".repeat(10_000);
    let mut faults = Vec::new();
    for text in ["", " \t ", "A\0nn", "A\nnn", "\u{202e}eeL", &long] {
        let name = text.to_owned();
        let given_name = Account {
            given_name: name.clone(),
            ..ann()
        };
        let family_name = Account {
            family_name: name,
            ..ann()
        };
        faults.push(("account.given_name", given_name));
        faults.push(("account.family_name", family_name));
    }
    let long_email = format!("{long}@example.org");
    for text in [
        "",
        "ann",
        "ann@localhost",
        "a@b.c\r\nBcc: x@y.z",
        &long_email,
    ] {
        let email = Some(text.to_owned());
        faults.push(("account.email", Account { email, ..ann() }));
    }
    for (year, month, day) in [(2023, 2, 29), (9999, 1, 1), (1700, 1, 1), (0, 0, 0)] {
        let birth_date = Some(Date { year, month, day });
        faults.push((
            "account.birth_date",
            Account {
                birth_date,
                ..ann()
            },
        ));
    }
    let phone = Some("0123".to_owned());
    faults.push(("account.phone", Account { phone, ..ann() }));
    let members = vec![Member::default(); 51];
    faults.push(("account.members", Account { members, ..ann() }));
    let locale = "klingon".to_owned();
    faults.push(("account.locale", Account { locale, ..ann() }));
    let plan = "x".repeat(65);
    faults.push(("account.plan", Account { plan, ..ann() }));
    let attributes = (0..65)
        .map(|key| (key.to_string(), String::new()))
        .collect();
    faults.push((
        "account.attributes",
        Account {
            attributes,
            ..ann()
        },
    ));
    faults
}

#[tokio::test]
async fn every_fault_of_a_profile_is_named() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    for (field, account) in faults() {
        let request = CreateAccountRequest {
            organization_id: organization.clone(),
            account: Some(account),
            ..Default::default()
        };
        let refused = assert_invalid(service.accounts.create_account(request).await, &[field]);
        let description = &refused.details.bad_request().unwrap().field_violations[0].description;
        assert!(description.len() > 8, "{field}: {description}");
    }
}

#[tokio::test]
async fn ids_and_enums_that_do_not_exist_are_named() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let unknown = Uuid::now_v7().to_string();

    let result = service
        .accounts
        .create_account(new_account(&unknown, "Ann", "Lee", ""))
        .await;
    assert_refused(result, Code::NotFound, "ORGANIZATION_NOT_FOUND", &[]);
    for organization_id in ["", "not-a-uuid", "1"] {
        let result = service
            .accounts
            .create_account(new_account(organization_id, "Ann", "Lee", ""))
            .await;
        assert_invalid(result, &["organization_id"]);
    }
    let request = CreateAccountRequest {
        invite: 77,
        on_platform_match: -1,
        request_id: "7".to_owned(),
        ..new_account(&organization, "Ann", "Lee", "")
    };
    let result = service.accounts.create_account(request).await;
    assert_invalid(result, &["invite", "on_platform_match", "request_id"]);

    let request = ListAccountsRequest {
        organization_id: organization.clone(),
        filter: Some(AccountFilter {
            states: vec![99],
            ..Default::default()
        }),
        ..Default::default()
    };
    let result = service.accounts.list_accounts(request).await;
    assert_invalid(result, &["filter.states[0]"]);
    let request = SendInvitationRequest {
        organization_id: organization.clone(),
        ..Default::default()
    };
    let result = service.invitations.send_invitation(request).await;
    assert_invalid(result, &["account_id"]);
    let request = GetAccountRequest {
        organization_id: organization.clone(),
        account_id: String::new(),
    };
    assert_invalid(service.accounts.get_account(request).await, &["account_id"]);
    let request = CheckDuplicatesRequest {
        organization_id: organization,
        ..Default::default()
    };
    let result = service.accounts.check_duplicates(request).await;
    assert_invalid(result, &["given_name", "family_name"]);
}

#[tokio::test]
async fn malformed_page_fields_are_refused() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let list = |page_size, page_token: &str| ListInvitationsRequest {
        organization_id: organization.clone(),
        page_size,
        page_token: page_token.to_owned(),
        ..Default::default()
    };
    let result = service.invitations.list_invitations(list(-1, "")).await;
    assert_invalid(result, &["page_size"]);
    let result = service.invitations.list_invitations(list(0, "???")).await;
    assert_invalid(result, &["page_token"]);
    // A page of everything is cut to the largest one, not refused.
    service
        .invitations
        .list_invitations(list(i32::MAX, ""))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_with_the_limit() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let mut request = new_account(&organization, "Ann", "Lee", "");
    request.account.as_mut().unwrap().plan = "x".repeat(2 * 1024 * 1024);
    let result = service.accounts.create_account(request).await;
    let refused = assert_refused(result, Code::OutOfRange, "MESSAGE_TOO_LARGE", &[]);
    assert!(refused.message.contains("1048576"), "{refused:?}");
}

#[tokio::test]
async fn calls_that_are_not_served_yet_say_so() {
    let mut service = Service::start().await;
    let channel = Channel::from_shared(format!("http://{}", service.address)).unwrap();
    let mut groups = GroupServiceClient::new(channel.connect().await.unwrap());
    let result = groups.create_group(CreateGroupRequest::default()).await;
    let refused = assert_refused(result, Code::Unimplemented, "NOT_IMPLEMENTED", &[]);
    assert!(
        refused.message.contains("CreateGroup is not served"),
        "{refused:?}"
    );
    let request = usher_proto::account::v1::EraseAccountRequest::default();
    let result = service.accounts.erase_account(request).await;
    assert_refused(result, Code::Unimplemented, "NOT_IMPLEMENTED", &[]);
}

#[tokio::test]
async fn fields_that_are_not_served_yet_are_named() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let list = |states: Vec<i32>| ListAccountsRequest {
        organization_id: organization.clone(),
        filter: Some(AccountFilter {
            states,
            plan: Some("pro".to_owned()),
            text: Some("ann".to_owned()),
            ..Default::default()
        }),
        ..Default::default()
    };
    let result = service.accounts.list_accounts(list(vec![])).await;
    let unserved = ["filter.plan", "filter.text"];
    let refused = assert_refused(result, Code::Unimplemented, "NOT_IMPLEMENTED", &unserved);
    assert!(
        refused.message.starts_with("filter.plan: is not served"),
        "{refused:?}"
    );
    let result = service.accounts.list_accounts(list(vec![99])).await;
    assert_invalid(result, &["filter.plan", "filter.states[0]", "filter.text"]);
    let request = SendInvitationRequest {
        organization_id: organization.clone(),
        target: Some(Target::GroupId(Uuid::now_v7().to_string())),
        ..Default::default()
    };
    let result = service.invitations.send_invitation(request).await;
    assert_refused(
        result,
        Code::Unimplemented,
        "NOT_IMPLEMENTED",
        &["group_id"],
    );
}

#[tokio::test]
async fn attributes_whose_keys_become_equal_are_refused() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let mut request = new_account(&organization, "Ann", "Lee", "");
    // The same letter, composed and not, and with a space.
    for (key, value) in [("\u{e9}", "one"), ("e\u{301} ", "two")] {
        let account = request.account.as_mut().unwrap();
        account.attributes.insert(key.to_owned(), value.to_owned());
    }
    let result = service.accounts.create_account(request).await;
    assert_invalid(result, &["account.attributes[\"\u{e9}\"]"]);
}

#[tokio::test]
async fn bytes_that_are_not_grpc_do_not_stop_the_service() {
    let mut service = Service::start().await;
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 4096],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\ngarbage",
    ] {
        let mut stream = TcpStream::connect(service.address).await.unwrap();
        // The server may close the connection before everything is written.
        let _ = stream.write_all(bytes).await;
        let _ = tokio::time::timeout(Duration::from_secs(1), stream.shutdown()).await;
    }
    service.organization().await;
}
