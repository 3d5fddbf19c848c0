//! Which links work while a newer email waits, and after.

use std::collections::HashMap;

use futures::future::join_all;
use tonic::Code;
use usher_proto::{
    account::v1::{AccountState, InvitationState, Organization, OrganizationSettings, TokenStatus},
    event::v1::{DeliveryChanged, DeliveryState, event::Payload},
};

use super::{Resent, ann};
use crate::support::{
    PASSWORD, Service, assert_refused, before_expiry, new_account, refusal, report_of,
    send_invitation, update_organization,
};

#[tokio::test]
async fn the_link_in_hand_works_until_the_newer_email_has_left() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let Resent {
        account,
        first,
        second,
    } = service.resent(ann(&organization)).await;
    assert_ne!(first.1.token, second.1.token);
    let waiting = DeliveryChanged {
        throttled_until: Some(before_expiry(&second.0)),
        ..report_of(&second.0, DeliveryState::Throttled, 1)
    };
    service.report(&organization, waiting).await;
    service
        .invitation_in(&second.0, InvitationState::Throttled)
        .await;
    for link in [&first.1, &second.1] {
        assert_eq!(service.status(link).await, TokenStatus::Valid);
    }
    let shown = service.account(&organization, &account.account_id).await;
    assert_eq!(shown.state(), AccountState::Invited);
    let newest = shown.last_invitation.unwrap();
    assert_eq!(newest.invitation_id, second.0.invitation_id);
    assert_eq!(newest.state(), InvitationState::Throttled);

    service.sent(&second.0).await;
    assert_eq!(
        service.states_of(&account).await,
        [InvitationState::Sent, InvitationState::Superseded]
    );
    assert_eq!(service.status(&first.1).await, TokenStatus::Superseded);
    let result = service.activate(&first.1.token, PASSWORD).await;
    assert_refused(result, Code::FailedPrecondition, "TOKEN_SUPERSEDED", &[]);
    service.activate(&second.1.token, PASSWORD).await.unwrap();
    assert_eq!(
        service.states_of(&account).await,
        [InvitationState::Accepted, InvitationState::Superseded]
    );
}

#[tokio::test]
async fn using_the_older_link_ends_the_newer_one_and_stops_its_email() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let Resent {
        account,
        first,
        second,
    } = service.resent(ann(&organization)).await;
    service.activate(&first.1.token, PASSWORD).await.unwrap();
    let Some(Payload::InvitationRevoked(stopped)) = service.next_event().await.payload else {
        panic!("the second email is to be stopped");
    };
    assert_eq!(stopped.invitation_id, second.0.invitation_id);
    assert_eq!(
        service.states_of(&account).await,
        [InvitationState::Superseded, InvitationState::Accepted]
    );
    // There is no newer email to look for: the client can log in.
    for link in [&first.1, &second.1] {
        let result = service.activate(&link.token, PASSWORD).await;
        assert_refused(result, Code::FailedPrecondition, "TOKEN_USED", &[]);
        assert_eq!(service.status(link).await, TokenStatus::Used);
    }
    let shown = service.account(&organization, &account.account_id).await;
    assert_eq!(shown.state(), AccountState::Active);
}

#[tokio::test]
async fn of_64_callers_with_both_links_of_an_account_one_wins() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let resent = service.resent(ann(&organization)).await;
    let tokens = [&resent.first.1.token, &resent.second.1.token];
    let calls = (0..64).map(|index| service.activate(tokens[index % 2], PASSWORD));
    let mut answers: HashMap<String, usize> = HashMap::new();
    for result in join_all(calls).await {
        let answer = match result {
            Ok(_) => "OK".to_owned(),
            refused @ Err(_) => refusal(refused).reason,
        };
        *answers.entry(answer).or_default() += 1;
    }
    assert_eq!(
        answers,
        HashMap::from([("OK".to_owned(), 1), ("TOKEN_USED".to_owned(), 63)])
    );
    let mut states = service.states_of(&resent.account).await;
    states.sort_by_key(|state| *state as i32);
    assert_eq!(
        states,
        [InvitationState::Accepted, InvitationState::Superseded]
    );
}

#[tokio::test]
async fn an_email_that_fails_leaves_the_older_link_and_another_can_be_sent() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let Resent {
        account,
        first,
        second,
    } = service.resent(ann(&organization)).await;
    for (revision, state, shown) in [
        (1, DeliveryState::Failed, InvitationState::Failed),
        (2, DeliveryState::Suppressed, InvitationState::Suppressed),
        (3, DeliveryState::Cancelled, InvitationState::Failed),
    ] {
        let report = report_of(&second.0, state, revision);
        service.report(&organization, report).await;
        service.invitation_in(&second.0, shown).await;
        assert_eq!(service.status(&first.1).await, TokenStatus::Valid);
    }
    let shown = service.account(&organization, &account.account_id).await;
    assert_eq!(shown.state(), AccountState::Invited);

    let (third, already_waiting) = service.send(send_invitation(&account)).await;
    assert!(!already_waiting);
    assert_eq!(service.status(&first.1).await, TokenStatus::Valid);
    service.next_link().await;
    service.sent(&third).await;
    assert_eq!(
        service.states_of(&account).await,
        [
            InvitationState::Sent,
            InvitationState::Superseded,
            InvitationState::Superseded
        ]
    );
    // What failed may be tried again, the first has left.
    let Some(Payload::InvitationRevoked(stopped)) = service.next_event().await.payload else {
        panic!("the second email is to be stopped");
    };
    assert_eq!(stopped.invitation_id, second.0.invitation_id);
}

#[tokio::test]
async fn withdrawing_kills_every_link_of_the_account() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    for (index, named) in ["first", "second"].into_iter().enumerate() {
        let email = format!("{named}@example.org");
        let resent = service
            .resent(new_account(&organization, named, named, &email))
            .await;
        let invitations = [&resent.first.0, &resent.second.0];
        let revoked = service.revoke(invitations[index]).await.unwrap();
        assert_eq!(revoked.state(), InvitationState::Revoked);
        for link in [&resent.first.1, &resent.second.1] {
            assert_eq!(service.status(link).await, TokenStatus::Revoked);
            let result = service.activate(&link.token, PASSWORD).await;
            assert_refused(result, Code::FailedPrecondition, "TOKEN_REVOKED", &[]);
        }
        // The first email has left.
        let Some(Payload::InvitationRevoked(stopped)) = service.next_event().await.payload else {
            panic!("the second email is to be stopped");
        };
        assert_eq!(stopped.invitation_id, resent.second.0.invitation_id);
        let account_id = &resent.account.account_id;
        let account = service.account(&organization, account_id).await;
        assert_eq!(account.state(), AccountState::NotInvited);
        // Nothing blocks a new one.
        let (_, already_waiting) = service.send(send_invitation(&account)).await;
        assert!(!already_waiting);
        service.next_link().await;
    }
}

#[tokio::test]
async fn a_newer_invitation_outlives_the_link_in_hand() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let account = service.create(ann(&organization)).await;
    let first = account.last_invitation.clone().unwrap();
    service.sent(&first).await;
    let shorter = Organization {
        settings: Some(OrganizationSettings {
            invitation_lifetime: Some(prost_types::Duration {
                seconds: 24 * 3600,
                nanos: 0,
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    service
        .update_organization(update_organization(
            &organization,
            &["settings.invitation_lifetime"],
            shorter,
        ))
        .await;
    // Otherwise the account would not be invited while the older link still works.
    let second = service.invite(&account).await;
    assert_eq!(second.expire_time, first.expire_time);
    service.revoke(&second).await.unwrap();
    let third = service.invite(&account).await;
    let lifetime = third.expire_time.unwrap().seconds - third.create_time.unwrap().seconds;
    assert_eq!(lifetime, 24 * 3600);
}
