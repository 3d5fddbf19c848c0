use tonic::{Request, transport::Channel};
use usher_proto::account::v1::{
    Account, AuditEvent, CloseAccountRequest, ListAuditEventsRequest, Organization,
    ReopenAccountRequest, RevokeInvitationRequest, audit_service_client::AuditServiceClient,
};

use crate::support::{
    PASSWORD, Service, assert_invalid, new_account, update_account, update_organization,
};

async fn list(service: &Service, request: ListAuditEventsRequest) -> (Vec<AuditEvent>, String) {
    let channel = Channel::from_shared(format!("http://{}", service.address)).unwrap();
    let mut client = AuditServiceClient::new(channel.connect().await.unwrap());
    let response = client
        .list_audit_events(request)
        .await
        .unwrap()
        .into_inner();
    (response.audit_events, response.next_page_token)
}

fn actions(events: &[AuditEvent]) -> Vec<&str> {
    events.iter().map(|event| event.action.as_str()).collect()
}

/// Does everything that changes something once.
async fn change_everything(service: &mut Service) -> (String, Account) {
    let organization_id = service.organization().await;
    let renamed = Organization {
        display_name: "Acme & Sons".to_owned(),
        ..Default::default()
    };
    service
        .update_organization(update_organization(
            &organization_id,
            &["display_name"],
            renamed,
        ))
        .await;
    let mut create = Request::new(new_account(
        &organization_id,
        "Ann",
        "Lee",
        "ann@example.org",
    ));
    create
        .metadata_mut()
        .insert("usher-caller", "staff/nora".parse().unwrap());
    let created = service.accounts.create_account(create).await.unwrap();
    let account = created.into_inner().account.unwrap();
    let upgraded = Account {
        plan: "pro".to_owned(),
        ..Default::default()
    };
    service
        .update(update_account(&account, &["plan"], upgraded))
        .await;
    service.next_link().await;
    service
        .sent(account.last_invitation.as_ref().unwrap())
        .await;
    let invitation = service.invite(&account).await;
    let revoke = RevokeInvitationRequest {
        organization_id: organization_id.clone(),
        invitation_id: invitation.invitation_id,
        ..Default::default()
    };
    service.invitations.revoke_invitation(revoke).await.unwrap();
    service.next_link().await;
    service.invite(&account).await;
    let link = service.next_link().await;
    service.activate(&link.token, PASSWORD).await.unwrap();
    let close = CloseAccountRequest {
        organization_id: organization_id.clone(),
        account_id: account.account_id.clone(),
        reason: "moved away".to_owned(),
        ..Default::default()
    };
    service.accounts.close_account(close).await.unwrap();
    let reopen = ReopenAccountRequest {
        organization_id: organization_id.clone(),
        account_id: account.account_id.clone(),
        ..Default::default()
    };
    service.accounts.reopen_account(reopen).await.unwrap();
    (organization_id, account)
}

#[tokio::test]
async fn every_change_leaves_an_entry_with_who_did_what() {
    let mut service = Service::start().await;
    let (organization_id, account) = change_everything(&mut service).await;
    let all = ListAuditEventsRequest {
        organization_id: organization_id.clone(),
        ..Default::default()
    };
    let (events, _) = list(&service, all).await;
    assert_eq!(
        actions(&events),
        [
            "account.reopened",
            "account.closed",
            "account.activated",
            "invitation.sent",
            "invitation.revoked",
            "invitation.sent",
            "account.updated",
            "invitation.sent",
            "account.created",
            "organization.updated",
            "organization.created",
        ]
    );
    let of = |action: &str| {
        events
            .iter()
            .rev()
            .find(|event| event.action == action)
            .unwrap()
    };
    assert_eq!(of("account.created").actor, "staff/nora");
    assert_eq!(of("account.created").account_id, account.account_id);
    assert_eq!(of("account.updated").details["changed_fields"], "plan");
    assert_eq!(of("account.closed").details["reason"], "moved away");
    assert_eq!(of("account.closed").details["state_before"], "ACTIVE");
    assert_eq!(
        of("organization.updated").details["changed_fields"],
        "display_name"
    );
    assert_eq!(of("organization.created").account_id, "");
    assert!(of("account.activated").actor.starts_with("person:"));
    for event in &events {
        assert_eq!(event.organization_id, organization_id);
        assert!(event.occur_time.is_some());
        let text = format!("{event:?}");
        for personal in ["Ann", "Lee", "ann@example.org", PASSWORD, "Sons"] {
            assert!(!text.contains(personal), "{personal} in {text}");
        }
    }
}

#[tokio::test]
async fn entries_are_filtered_and_paged() {
    let mut service = Service::start().await;
    let (organization_id, account) = change_everything(&mut service).await;
    let base = ListAuditEventsRequest {
        organization_id: organization_id.clone(),
        ..Default::default()
    };
    let (events, _) = list(&service, base.clone()).await;

    let (found, _) = list(
        &service,
        ListAuditEventsRequest {
            account_id: account.account_id.clone(),
            actions: vec!["account.closed".to_owned(), "account.created".to_owned()],
            ..base.clone()
        },
    )
    .await;
    assert_eq!(actions(&found), ["account.closed", "account.created"]);
    let (found, _) = list(
        &service,
        ListAuditEventsRequest {
            actor: "staff/nora".to_owned(),
            ..base.clone()
        },
    )
    .await;
    assert_eq!(actions(&found), ["invitation.sent", "account.created"]);
    let (found, _) = list(
        &service,
        ListAuditEventsRequest {
            occurred_from: events[2].occur_time,
            occurred_before: events[1].occur_time,
            ..base.clone()
        },
    )
    .await;
    assert_eq!(actions(&found), ["account.activated"]);

    let mut paged = Vec::new();
    let mut page_token = String::new();
    loop {
        let (page, next) = list(
            &service,
            ListAuditEventsRequest {
                page_size: 4,
                page_token,
                ..base.clone()
            },
        )
        .await;
        assert!(page.len() <= 4);
        paged.extend(page);
        if next.is_empty() {
            break;
        }
        page_token = next;
    }
    assert_eq!(paged, events);
}

#[tokio::test]
async fn faulty_filters_are_named_together() {
    let service = Service::start().await;
    let channel = Channel::from_shared(format!("http://{}", service.address)).unwrap();
    let mut client = AuditServiceClient::new(channel.connect().await.unwrap());
    let request = ListAuditEventsRequest {
        organization_id: "nobody".to_owned(),
        account_id: "nothing".to_owned(),
        actor: "x".repeat(129),
        actions: vec!["account.closed".to_owned(), "account.shut".to_owned()],
        occurred_from: Some(prost_types::Timestamp {
            seconds: i64::MAX,
            nanos: -1,
        }),
        ..Default::default()
    };
    let result = client.list_audit_events(request).await;
    assert_invalid(
        result,
        &[
            "organization_id",
            "account_id",
            "actor",
            "actions[1]",
            "occurred_from",
        ],
    );
}
