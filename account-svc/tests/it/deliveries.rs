//! What notify-svc reports about emails.

use account_svc::{
    db::invitation::{DeliveryReport, record_deliveries},
    domain::state::InvitationState as EmailState,
};
use prost_types::Timestamp;
use sqlx::AssertSqlSafe;
use usher_proto::{
    account::v1::InvitationState,
    event::v1::{DeliveryChanged, DeliveryState},
};
use usher_runtime::database::{self, Scope};
use uuid::Uuid;

use crate::support::{Service, before_expiry, new_account, report_of, stored_report, within};

#[tokio::test]
async fn an_email_that_arrived_was_sent_whatever_order_the_reports_come_in() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
    for (state, shown, name) in [
        (DeliveryState::Delivered, InvitationState::Delivered, "Ann"),
        (DeliveryState::Bounced, InvitationState::Bounced, "Robert"),
    ] {
        let email = format!("{name}@example.org");
        let account = service
            .create(new_account(&organization, name, "Lee", &email))
            .await;
        let invitation = account.last_invitation.unwrap();
        let arrival = DeliveryChanged {
            change_time: at(1_700_000_000),
            ..report_of(&invitation, state, 3)
        };
        service.report(&organization, arrival.clone()).await;
        let arrived = service.invitation_in(&invitation, shown).await;
        assert_eq!(arrived.sent_time, at(1_700_000_000));

        // SENT, which is older, is no news.
        let sent = DeliveryChanged {
            state: DeliveryState::Sent.into(),
            revision: 2,
            ..arrival
        };
        service.report(&organization, sent).await;
        let arrived = service.invitation_in(&invitation, shown).await;
        assert_eq!(arrived.sent_time, at(1_700_000_000));
    }
    service.stop().await;
}

#[tokio::test]
async fn an_impossible_time_is_parked_and_its_neighbours_are_taken_over() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let account = service
        .create(new_account(&organization, "Ann", "Lee", "ann@example.org"))
        .await;
    let invitation = account.last_invitation.unwrap();
    let before_expiry = before_expiry(&invitation);
    let change = |revision, nanos| DeliveryChanged {
        change_time: Some(Timestamp {
            seconds: 1_700_000_000,
            nanos,
        }),
        throttled_until: Some(Timestamp {
            nanos,
            ..before_expiry
        }),
        ..report_of(&invitation, DeliveryState::Throttled, revision)
    };
    for (revision, nanos) in [(9, 1_500_000_000), (8, i32::MAX), (7, i32::MIN)] {
        service.report(&organization, change(revision, nanos)).await;
        let until_only = DeliveryChanged {
            change_time: Some(Timestamp::default()),
            ..change(revision, nanos)
        };
        service.report(&organization, until_only).await;
    }
    // Older than those, so it counts only because they did not.
    service.report(&organization, change(2, 0)).await;
    let throttled = service
        .invitation_in(&invitation, InvitationState::Throttled)
        .await;
    let until = Timestamp {
        nanos: 0,
        ..before_expiry
    };
    assert_eq!(throttled.throttled_until, Some(until));
    service.stop().await;
}

/// Two replicas that take over reports on the same invitations wait for each other and do not deadlock.
#[tokio::test]
async fn reports_lock_their_invitations_in_one_order_and_the_newest_counts() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let mut ids = Vec::new();
    for (name, email) in [("Ann", "a@example.org"), ("Robert", "b@example.org")] {
        let account = service
            .create(new_account(&organization, name, "Lee", email))
            .await;
        let invitation_id = account.last_invitation.unwrap().invitation_id;
        ids.push(Uuid::try_parse(&invitation_id).unwrap());
    }
    ids.sort_unstable();
    let report = |invitation_id, revision, state| DeliveryReport {
        organization_id: Uuid::try_parse(&organization).unwrap(),
        invitation_id,
        send_number: 1,
        revision,
        state,
        throttled_until: None,
        failure_reason: String::new(),
        sent_time: None,
    };
    let lock = |mode: &str| {
        let organization = &organization;
        AssertSqlSafe(format!(
            "SELECT count(*) FROM (SELECT FROM invitations WHERE organization_id = '{organization}'
                AND invitation_id = $1 FOR UPDATE {mode}) AS locked"
        ))
    };

    let mut holder = database::begin(&service.pool, Scope::Platform)
        .await
        .unwrap();
    sqlx::query(lock(""))
        .bind(ids[1])
        .execute(&mut *holder)
        .await
        .unwrap();
    let reports = vec![
        report(ids[1], 2, EmailState::Throttled),
        report(ids[0], 3, EmailState::Failed),
        report(ids[0], 2, EmailState::Throttled),
        report(ids[1], 1, EmailState::Queued),
    ];
    let pool = service.pool.clone();
    let replica = tokio::spawn(async move {
        let mut tx = database::begin(&pool, Scope::Platform).await?;
        record_deliveries(&mut tx, &reports).await?;
        tx.commit().await
    });
    // It waits for the second, which is held, and holds the first already.
    within(async {
        loop {
            let mut tx = database::begin(&service.pool, Scope::Platform)
                .await
                .unwrap();
            let free: i64 = sqlx::query_scalar(lock("SKIP LOCKED"))
                .bind(ids[0])
                .fetch_one(&mut *tx)
                .await
                .unwrap();
            tx.rollback().await.unwrap();
            if free == 0 {
                break;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    holder.rollback().await.unwrap();
    within(replica).await.unwrap().unwrap();
    for (id, state) in [
        (ids[0], InvitationState::Failed),
        (ids[1], InvitationState::Throttled),
    ] {
        let shown = service.invitation(&organization, &id.to_string()).await;
        assert_eq!(shown.state(), state);
    }
    service.stop().await;
}

#[tokio::test]
async fn staff_see_that_an_email_was_cancelled_until_they_invite_again() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let account = service
        .create(new_account(&organization, "Ann", "Lee", "ann@example.org"))
        .await;
    let invitation = account.last_invitation.clone().unwrap();
    let waiting = DeliveryChanged {
        throttled_until: Some(before_expiry(&invitation)),
        reason: "the recipient's limit".to_owned(),
        ..report_of(&invitation, DeliveryState::Throttled, 1)
    };
    service.report(&organization, waiting).await;
    let throttled = service
        .invitation_in(&invitation, InvitationState::Throttled)
        .await;
    assert_eq!(throttled.failure_reason, "");
    let cancelled = DeliveryChanged {
        reason: "staff cancelled the email".to_owned(),
        ..report_of(&invitation, DeliveryState::Cancelled, 2)
    };
    service.report(&organization, cancelled).await;
    let failed = service
        .invitation_in(&invitation, InvitationState::Failed)
        .await;
    assert_eq!(failed.failure_reason, "staff cancelled the email");
    assert_eq!((failed.throttled_until, failed.sent_time), (None, None));

    // An invitation that has ended is not one that failed.
    let newer = service.invite(&account).await;
    service.sent(&newer).await;
    let superseded = service
        .invitation_in(&invitation, InvitationState::Superseded)
        .await;
    assert_eq!(superseded.failure_reason, "");
    service.stop().await;
}

#[tokio::test]
async fn a_report_under_the_id_of_another_event_is_no_report() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let account = service
        .create(new_account(&organization, "Ann", "Lee", "ann@example.org"))
        .await;
    let invitation = account.last_invitation.unwrap();
    let forged = report_of(&invitation, DeliveryState::Failed, 9);
    service
        .report_as(Uuid::now_v7(), &organization, forged)
        .await;
    // Older than that one, so it counts only because that one did not.
    let sent = report_of(&invitation, DeliveryState::Sent, 2);
    service.report(&organization, sent).await;
    service
        .invitation_in(&invitation, InvitationState::Sent)
        .await;
    service.stop().await;
}

/// It would count as newer than all others: nobody could be invited again before the invitation expires.
#[tokio::test]
async fn a_report_on_an_email_that_was_not_asked_for_is_ignored() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let account = service
        .create(new_account(&organization, "Ann", "Lee", "ann@example.org"))
        .await;
    let first = account.last_invitation.clone().unwrap();
    for send_number in [0, 2, u32::MAX] {
        let forged = DeliveryChanged {
            send_number,
            throttled_until: Some(before_expiry(&first)),
            ..report_of(&first, DeliveryState::Throttled, 9)
        };
        service.report(&organization, forged).await;
    }
    service.sent(&first).await;

    // In one batch too. Nor does it supersede the link that the client has.
    let second = service.invite(&account).await;
    let forged = DeliveryReport {
        send_number: 2,
        ..stored_report(&second, EmailState::Sent, 9)
    };
    let queued = stored_report(&second, EmailState::Queued, 1);
    let record = async |reports: &[DeliveryReport]| {
        let mut tx = database::begin(&service.pool, Scope::Platform)
            .await
            .unwrap();
        let recorded = record_deliveries(&mut tx, reports).await.unwrap();
        tx.commit().await.unwrap();
        recorded
    };
    let recorded = record(&[forged.clone(), queued]).await;
    assert_eq!(recorded.refused, [forged.invitation_id]);
    assert!(recorded.superseded.is_empty());
    let failed = stored_report(&second, EmailState::Failed, 2);
    let recorded = record(&[failed, forged]).await;
    assert!(recorded.superseded.is_empty());
    for (invitation, state) in [
        (&first, InvitationState::Sent),
        (&second, InvitationState::Failed),
    ] {
        let shown = service
            .invitation(&organization, &invitation.invitation_id)
            .await;
        assert_eq!(shown.state(), state);
    }
    service.stop().await;
}

#[tokio::test]
async fn times_that_cannot_be_true_are_bounded() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let account = service
        .create(new_account(&organization, "Ann", "Lee", "ann@example.org"))
        .await;
    let invitation = account.last_invitation.unwrap();
    let end_of_time = Some(Timestamp {
        seconds: 253_402_300_799,
        nanos: 0,
    });
    let throttled = DeliveryChanged {
        throttled_until: end_of_time,
        ..report_of(&invitation, DeliveryState::Throttled, 1)
    };
    service.report(&organization, throttled).await;
    let throttled = service
        .invitation_in(&invitation, InvitationState::Throttled)
        .await;
    assert_eq!(throttled.throttled_until, invitation.expire_time);
    for (revision, reported, state) in [
        (2, DeliveryState::Sent, InvitationState::Sent),
        (3, DeliveryState::Delivered, InvitationState::Delivered),
    ] {
        let report = DeliveryChanged {
            change_time: end_of_time,
            ..report_of(&invitation, reported, revision)
        };
        service.report(&organization, report).await;
        let shown = service.invitation_in(&invitation, state).await;
        assert!(shown.sent_time.is_some());
        let is_past: bool =
            sqlx::query_scalar("SELECT sent_time BETWEEN create_time AND now() FROM invitations")
                .fetch_one(&mut service.admin().await)
                .await
                .unwrap();
        assert!(is_past, "{:?}", shown.sent_time);
    }
    service.stop().await;
}
