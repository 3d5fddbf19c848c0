//! Repeated requests: one email waits at most, and form and return URL are kept.

use std::collections::HashMap;

use futures::future::join_all;
use tonic::transport::Channel;
use usher_proto::{
    account::v1::{
        Account, Invitation, InvitationState, ListAuditEventsRequest, Organization,
        SendInvitationRequest, TokenStatus, audit_service_client::AuditServiceClient,
    },
    event::v1::{DeliveryChanged, DeliveryState, event::Payload},
};

use super::{Resent, ann};
use crate::support::{
    PASSWORD, Service, assert_invalid, before_expiry, new_account, report_of, send_invitation,
    update_account, update_organization,
};

#[tokio::test]
async fn an_email_whose_answer_was_lost_is_sent_once_more_and_waits() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let resent = service.resent(ann(&organization)).await;
    let (first, second) = (resent.first, resent.second.0);
    let lost = report_of(&second, DeliveryState::Unknown, 1);
    service.report(&organization, lost).await;
    // It shows nothing new, so what follows shows that it was taken over.
    let queued = report_of(&first.0, DeliveryState::Delivered, 9);
    service.report(&organization, queued).await;
    service
        .invitation_in(&first.0, InvitationState::Delivered)
        .await;
    let (waiting, already_waiting) = service.send(send_invitation(&resent.account)).await;
    assert!(already_waiting);
    assert_eq!(waiting.invitation_id, second.invitation_id);
    assert_eq!(waiting.state(), InvitationState::Queued);
}

/// As when notify-svc could not take the request over, and it lies with the dead letters.
#[tokio::test]
async fn an_email_that_is_never_reported_on_does_not_wait_for_ever() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let account = service.create(ann(&organization)).await;
    let lost = service.next_link().await;
    let first = account.last_invitation.clone().unwrap();
    let (waiting, already_waiting) = service.send(send_invitation(&account)).await;
    assert!(already_waiting);
    assert_eq!(waiting.invitation_id, first.invitation_id);

    make_older(&service, &first, "11 minutes").await;
    let (second, already_waiting) = service.send(send_invitation(&account)).await;
    assert!(!already_waiting);
    assert_ne!(second.invitation_id, first.invitation_id);
    // It is not sent beside the new one, should it be on its way after all.
    let Some(Payload::InvitationRevoked(stopped)) = service.next_event().await.payload else {
        panic!("the first email is stopped before the second is asked for");
    };
    assert_eq!(stopped.invitation_id, first.invitation_id);
    assert_eq!(stopped.send_number, 1);
    let link = service.next_link().await;
    assert_eq!(link.event.invitation_id, second.invitation_id);
    let given_up = service
        .invitation(&organization, &first.invitation_id)
        .await;
    assert_eq!(given_up.state(), InvitationState::Failed);
    assert!(
        given_up.failure_reason.contains("10 minutes"),
        "{given_up:?}"
    );
    // Nobody knows that its link did not reach the client, so it works until the newer email has left.
    assert_eq!(service.status(&lost).await, TokenStatus::Valid);
    service.sent(&second).await;
    assert_eq!(service.status(&lost).await, TokenStatus::Superseded);
}

/// One email of an account waits at most, also when notify-svc takes the first one in at last.
#[tokio::test]
async fn an_email_that_was_given_up_does_not_wait_beside_the_next_one() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let account = service.create(ann(&organization)).await;
    let first = account.last_invitation.clone().unwrap();
    make_older(&service, &first, "11 minutes").await;
    let (second, already_waiting) = service.send(send_invitation(&account)).await;
    assert!(!already_waiting);
    for (state, revision) in [(DeliveryState::Queued, 1), (DeliveryState::Throttled, 2)] {
        let late = report_of(&first, state, revision);
        service.report(&organization, late).await;
    }
    let taken_in = report_of(&second, DeliveryState::Throttled, 1);
    service.report(&organization, taken_in).await;
    // They were taken over one after the other.
    service
        .invitation_in(&second, InvitationState::Throttled)
        .await;
    assert_eq!(
        service.states_of(&account).await,
        [InvitationState::Throttled, InvitationState::Failed]
    );
    // What became of it in the end is shown.
    service.sent(&first).await;
    assert_eq!(
        service.states_of(&account).await,
        [InvitationState::Throttled, InvitationState::Sent]
    );
}

#[tokio::test]
async fn an_email_that_is_reported_on_waits_as_long_as_it_takes() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let account = service.create(ann(&organization)).await;
    let first = account.last_invitation.clone().unwrap();
    let throttled = report_of(&first, DeliveryState::Throttled, 1);
    service.report(&organization, throttled).await;
    service
        .invitation_in(&first, InvitationState::Throttled)
        .await;
    make_older(&service, &first, "1 day").await;
    let (waiting, already_waiting) = service.send(send_invitation(&account)).await;
    assert!(already_waiting);
    assert_eq!(waiting.invitation_id, first.invitation_id);
}

pub async fn make_older(service: &Service, invitation: &Invitation, age: &str) {
    sqlx::query(
        "UPDATE invitations SET create_time = create_time - $2::text::interval
        WHERE invitation_id = $1::uuid",
    )
    .bind(&invitation.invitation_id)
    .bind(age)
    .execute(&mut service.admin().await)
    .await
    .unwrap();
}

#[tokio::test]
async fn many_clicks_make_one_email_and_push_nothing_back() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let account = service.create(ann(&organization)).await;
    let first = service.next_link().await;
    service
        .sent(account.last_invitation.as_ref().unwrap())
        .await;
    let clicks = join_all((0..64).map(|_| service.send(send_invitation(&account)))).await;
    let made: Vec<_> = clicks.iter().filter(|(_, waiting)| !waiting).collect();
    assert_eq!(made.len(), 1);
    let second = &made[0].0;
    for (invitation, _) in &clicks {
        assert_eq!(invitation.invitation_id, second.invitation_id);
    }
    assert_eq!(
        service.next_link().await.event.invitation_id,
        second.invitation_id
    );

    let at = Some(before_expiry(second));
    let throttled = DeliveryChanged {
        throttled_until: at,
        ..report_of(second, DeliveryState::Throttled, 1)
    };
    service.report(&organization, throttled).await;
    service
        .invitation_in(second, InvitationState::Throttled)
        .await;
    for _ in 0..10 {
        let (waiting, already_waiting) = service.send(send_invitation(&account)).await;
        assert!(already_waiting);
        assert_eq!(waiting.invitation_id, second.invitation_id);
        assert_eq!(waiting.throttled_until, at);
    }
    assert_eq!(service.invitations_of(&account).await.len(), 2);
    assert_eq!(audited(&service, &account).await["invitation.sent"], 2);
    // No email was asked for or stopped since: the next event is of another account.
    let other = service
        .create(new_account(&organization, "Bo", "Diaz", "bo@example.org"))
        .await;
    let Some(Payload::InvitationRequested(next)) = service.next_event().await.payload else {
        panic!("an email was stopped");
    };
    assert_eq!(next.account_id, other.account_id);
    service.activate(&first.token, PASSWORD).await.unwrap();
}

/// How often each action stands in the audit log of an account.
async fn audited(service: &Service, account: &Account) -> HashMap<String, usize> {
    let request = ListAuditEventsRequest {
        organization_id: account.organization_id.clone(),
        account_id: account.account_id.clone(),
        ..Default::default()
    };
    let endpoint = Channel::from_shared(format!("http://{}", service.address)).unwrap();
    let mut client = AuditServiceClient::new(endpoint.connect().await.unwrap());
    let response = client.list_audit_events(request).await.unwrap();
    let mut actions = HashMap::new();
    for event in response.into_inner().audit_events {
        *actions.entry(event.action).or_default() += 1;
    }
    actions
}

#[tokio::test]
async fn form_and_return_url_are_kept_unless_told_otherwise() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let url = "https://portal.acme.example/welcome";
    let mut request = ann(&organization);
    (request.form_id, request.return_url) = ("intake".to_owned(), url.to_owned());
    let Resent {
        account, second, ..
    } = service.resent(request).await;
    assert_eq!(
        (second.0.form_id.as_str(), second.0.return_url.as_str()),
        ("intake", url)
    );
    assert_eq!(second.1.event.form_id, "intake");
    assert_eq!(second.1.event.return_url, url);

    // A corrected email keeps them too.
    let corrected = Account {
        email: Some("annie@example.org".to_owned()),
        ..Default::default()
    };
    let updated = service
        .update(update_account(&account, &["email"], corrected))
        .await;
    let third = updated.last_invitation.unwrap();
    assert_eq!(
        (third.form_id.as_str(), third.return_url.as_str()),
        ("intake", url)
    );
    service.sent(&third).await;

    // Empty means none, and leaves the other alone.
    let (fourth, _) = service
        .send(SendInvitationRequest {
            form_id: Some(String::new()),
            ..send_invitation(&account)
        })
        .await;
    assert_eq!(
        (fourth.form_id.as_str(), fourth.return_url.as_str()),
        ("", url)
    );
    service.sent(&fourth).await;
    let (fifth, _) = service
        .send(SendInvitationRequest {
            form_id: Some("other".to_owned()),
            return_url: Some(String::new()),
            ..send_invitation(&account)
        })
        .await;
    assert_eq!(
        (fifth.form_id.as_str(), fifth.return_url.as_str()),
        ("other", "")
    );
}

#[tokio::test]
async fn a_kept_return_url_whose_origin_was_removed_is_left_out() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let allow = |origins: &[&str]| {
        let new = Organization {
            allowed_return_origins: origins.iter().map(|&origin| origin.to_owned()).collect(),
            ..Default::default()
        };
        update_organization(&organization, &["allowed_return_origins"], new)
    };
    service
        .update_organization(allow(&["https://app.example.org"]))
        .await;
    let mut request = ann(&organization);
    request.return_url = "https://app.example.org/done".to_owned();
    let account = service.create(request).await;
    let first = account.last_invitation.as_ref().unwrap();
    assert_eq!(first.return_url, "https://app.example.org/done");
    service.sent(first).await;
    service.update_organization(allow(&[])).await;

    // Whoever asks for it now is told.
    let again = SendInvitationRequest {
        return_url: Some("https://app.example.org/done".to_owned()),
        ..send_invitation(&account)
    };
    let result = service.invitations.send_invitation(again).await;
    assert_invalid(result, &["return_url"]);
    let (kept, already_waiting) = service.send(send_invitation(&account)).await;
    assert_eq!((kept.return_url.as_str(), already_waiting), ("", false));
}

#[tokio::test]
async fn a_waiting_invitation_takes_another_form_and_return_url_over() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let mut request = ann(&organization);
    request.form_id = "intake".to_owned();
    let Resent {
        account, second, ..
    } = service.resent(request).await;
    let again = SendInvitationRequest {
        return_url: Some("https://portal.acme.example/later".to_owned()),
        ..send_invitation(&account)
    };
    for _ in 0..2 {
        let (waiting, already_waiting) = service.send(again.clone()).await;
        assert!(already_waiting);
        assert_eq!(waiting.invitation_id, second.0.invitation_id);
        assert_eq!(waiting.form_id, "intake");
        assert_eq!(waiting.return_url, "https://portal.acme.example/later");
    }
    // The second time nothing changed.
    let actions = audited(&service, &account).await;
    assert_eq!(actions["invitation.updated"], 1);
    assert_eq!(actions["invitation.sent"], 2);
    let inspected = service.inspect(&second.1.token).await.unwrap();
    assert_eq!(inspected.form_id, "intake");
    assert_eq!(inspected.return_url, "https://portal.acme.example/later");
    let elsewhere = SendInvitationRequest {
        return_url: Some("https://evil.example/".to_owned()),
        ..again
    };
    let result = service.invitations.send_invitation(elsewhere).await;
    assert_invalid(result, &["return_url"]);
}

#[tokio::test]
async fn an_email_in_other_capitals_is_the_same_mailbox() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let account = service
        .create(new_account(
            &organization,
            "Nora",
            "Quill",
            "Nora.QUILL@example.org",
        ))
        .await;
    let link = service.next_link().await;
    let corrected = Account {
        email: Some("nora.quill@example.org".to_owned()),
        ..Default::default()
    };
    let updated = service
        .update(update_account(&account, &["email"], corrected))
        .await;
    assert_eq!(updated.email(), "nora.quill@example.org");
    let newest = updated.last_invitation.unwrap();
    assert_eq!(newest.invitation_id, link.event.invitation_id);
    assert_eq!(newest.state(), InvitationState::Queued);
    assert_eq!(service.invitations_of(&account).await.len(), 1);
    service.activate(&link.token, PASSWORD).await.unwrap();
}
