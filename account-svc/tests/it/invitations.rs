use prost_types::Timestamp;
use tonic::Code;
use usher_proto::{
    account::v1::{
        AccountState, CreateAccountRequest, InvitationState, InvitePolicy, RevokeInvitationRequest,
        SendInvitationRequest, send_invitation_request::Target,
    },
    event::v1::{DeliveryChanged, DeliveryState},
};
use uuid::Uuid;

use crate::support::{
    PASSWORD, Service, assert_invalid, assert_refused, before_expiry, new_account, report_of,
};

#[tokio::test]
async fn accounts_that_cannot_be_invited_are_refused_with_a_reason() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let managed = service
        .create(new_account(&organization, "Ann", "Lee", ""))
        .await;
    let active = service
        .create(new_account(&organization, "Bo", "Diaz", "bo@example.org"))
        .await;
    let link = service.next_link().await;
    service.activate(&link.token, PASSWORD).await.unwrap();
    for (account_id, code, reason) in [
        (
            managed.account_id,
            Code::FailedPrecondition,
            "ACCOUNT_HAS_NO_EMAIL",
        ),
        (
            active.account_id,
            Code::FailedPrecondition,
            "ACCOUNT_ALREADY_ACTIVE",
        ),
        (
            Uuid::now_v7().to_string(),
            Code::NotFound,
            "ACCOUNT_NOT_FOUND",
        ),
    ] {
        let result = service
            .invitations
            .send_invitation(SendInvitationRequest {
                organization_id: organization.clone(),
                target: Some(Target::AccountId(account_id)),
                ..Default::default()
            })
            .await;
        assert_refused(result, code, reason, &[]);
    }
}

#[tokio::test]
async fn the_link_of_a_revoked_invitation_stops_at_once_and_it_stays_revoked() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let account = service
        .create(new_account(&organization, "Ann", "Lee", "ann@example.org"))
        .await;
    let link = service.next_link().await;
    let revoke = RevokeInvitationRequest {
        organization_id: organization.clone(),
        invitation_id: link.event.invitation_id.clone(),
        ..Default::default()
    };
    for _ in 0..2 {
        let revoked = service
            .invitations
            .revoke_invitation(revoke.clone())
            .await
            .unwrap();
        assert_eq!(
            revoked.into_inner().invitation.unwrap().state(),
            InvitationState::Revoked
        );
    }
    let result = service.activate(&link.token, PASSWORD).await;
    assert_refused(result, Code::FailedPrecondition, "TOKEN_REVOKED", &[]);
    let account = service.account(&organization, &account.account_id).await;
    assert_eq!(account.state(), AccountState::NotInvited);

    // It does not block the person.
    service.invite(&account).await;
    let link = service.next_link().await;
    service.activate(&link.token, PASSWORD).await.unwrap();
    let revoke = RevokeInvitationRequest {
        invitation_id: link.event.invitation_id,
        ..revoke
    };
    let result = service.invitations.revoke_invitation(revoke).await;
    assert_refused(result, Code::FailedPrecondition, "INVITATION_ENDED", &[]);
}

#[tokio::test]
async fn an_invitation_shows_the_newest_state_of_its_email() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let account = service
        .create(new_account(&organization, "Ann", "Lee", "ann@example.org"))
        .await;
    let invitation = account.last_invitation.unwrap();
    let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
    let until = Some(before_expiry(&invitation));
    let change = |state, revision| DeliveryChanged {
        change_time: at(1_700_000_000),
        ..report_of(&invitation, state, revision)
    };
    service
        .report(
            &organization,
            DeliveryChanged {
                throttled_until: until,
                ..change(DeliveryState::Throttled, 2)
            },
        )
        .await;
    let throttled = service
        .invitation_in(&invitation, InvitationState::Throttled)
        .await;
    assert_eq!(throttled.throttled_until, until);

    // What happened before arrives after: it is no news.
    service
        .report(&organization, change(DeliveryState::Queued, 1))
        .await;
    service
        .report(&organization, change(DeliveryState::Sent, 3))
        .await;
    let sent = service
        .invitation_in(&invitation, InvitationState::Sent)
        .await;
    assert_eq!(sent.sent_time, at(1_700_000_000));
    assert_eq!(sent.throttled_until, None);
    service
        .report(&organization, change(DeliveryState::Throttled, 2))
        .await;

    service
        .report(
            &organization,
            DeliveryChanged {
                reason: "no such mailbox".to_owned(),
                ..change(DeliveryState::Failed, 4)
            },
        )
        .await;
    let failed = service
        .invitation_in(&invitation, InvitationState::Failed)
        .await;
    assert_eq!(failed.failure_reason, "no such mailbox");
}

#[tokio::test]
async fn a_link_returns_only_to_origins_of_the_organization() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let request = |return_url: &str| CreateAccountRequest {
        return_url: return_url.to_owned(),
        ..new_account(&organization, "Ann", "Lee", "ann@example.org")
    };
    for url in [
        "https://evil.example/",
        "javascript:alert(1)",
        "http://portal.acme.example/",
        "/welcome",
    ] {
        let result = service.accounts.create_account(request(url)).await;
        assert_invalid(result, &["return_url"]);
        // Also where nobody is invited at once.
        let mut held = request(url);
        held.invite = InvitePolicy::Hold.into();
        let result = service.accounts.create_account(held).await;
        assert_invalid(result, &["return_url"]);
        // No other fault hides it.
        let mut faulty = request(url);
        faulty.form_id = "x".repeat(129);
        let result = service.accounts.create_account(faulty).await;
        assert_invalid(result, &["form_id", "return_url"]);
        let result = service
            .invitations
            .send_invitation(SendInvitationRequest {
                organization_id: organization.clone(),
                form_id: Some("x".repeat(129)),
                return_url: Some(url.to_owned()),
                ..Default::default()
            })
            .await;
        assert_invalid(result, &["account_id", "form_id", "return_url"]);
    }
    service
        .create(request("https://portal.acme.example/welcome?a=1"))
        .await;
    let link = service.next_link().await;
    let activated = service.activate(&link.token, PASSWORD).await.unwrap();
    assert_eq!(
        activated.return_url,
        "https://portal.acme.example/welcome?a=1"
    );
}

#[tokio::test]
async fn the_caller_is_stored_as_requested_by() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let mut request =
        tonic::Request::new(new_account(&organization, "Ann", "Lee", "ann@example.org"));
    request
        .metadata_mut()
        .insert("usher-caller", "staff:7".parse().unwrap());
    let account = service
        .accounts
        .create_account(request)
        .await
        .unwrap()
        .into_inner()
        .account
        .unwrap();
    assert_eq!(account.last_invitation.unwrap().requested_by, "staff:7");
}
