//! Rules that follow the clock: expiry after a wait, ages where the organization is, retention.

use account_svc::retention;
use sqlx::Connection as _;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use usher_proto::account::v1::{
    Account, Date, InvitationState, Organization, OrganizationSettings, TokenStatus,
};
use usher_runtime::housekeeping::purge_all;

use crate::support::{
    PASSWORD, Service, assert_invalid, assert_refused, new_account, update_account,
    update_organization,
};

fn with_settings(settings: OrganizationSettings) -> Organization {
    Organization {
        settings: Some(settings),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_link_that_expires_during_a_wait_for_a_lock_is_refused() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let account = service
        .create(new_account(&organization, "Ann", "Lee", "ann@example.org"))
        .await;
    let link = service.next_link().await;
    // The link dies while the activation waits for the account, which this transaction holds.
    let mut admin = service.admin().await;
    let mut lock = admin.begin().await.unwrap();
    sqlx::query("SELECT FROM accounts WHERE account_id = $1::uuid FOR UPDATE")
        .bind(&account.account_id)
        .execute(&mut *lock)
        .await
        .unwrap();
    let mut other = service.admin().await;
    sqlx::query("UPDATE tokens SET expire_time = clock_timestamp() + interval '2 seconds'")
        .execute(&mut other)
        .await
        .unwrap();
    let activation = service.activate(&link.token, PASSWORD);
    let release = async {
        loop {
            let (expired, waits): (bool, bool) = sqlx::query_as(
                "SELECT (SELECT expire_time < clock_timestamp() FROM tokens),
                    EXISTS (SELECT FROM pg_stat_activity
                        WHERE datname = current_database() AND wait_event_type = 'Lock')",
            )
            .fetch_one(&mut other)
            .await
            .unwrap();
            if expired {
                assert!(waits, "the activation waits for the account");
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        lock.commit().await.unwrap();
    };
    let (result, ()) = tokio::join!(activation, release);
    assert_refused(result, Code::FailedPrecondition, "TOKEN_EXPIRED", &[]);
}

#[tokio::test]
async fn an_expired_invitation_stays_expired_when_another_is_sent() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let account = service
        .create(new_account(&organization, "Ann", "Lee", "ann@example.org"))
        .await;
    let old = service.next_link().await;
    let mut admin = service.admin().await;
    for table in ["invitations", "tokens"] {
        let past = format!("UPDATE {table} SET expire_time = now() - interval '1 hour'");
        sqlx::query(sqlx::AssertSqlSafe(past))
            .execute(&mut admin)
            .await
            .unwrap();
    }
    let first = service
        .invitation(
            &organization,
            &account.last_invitation.as_ref().unwrap().invitation_id,
        )
        .await;
    assert_eq!(first.state(), InvitationState::Expired);
    // Its email never left, and blocks no other one.
    let newer = service.invite(&account).await;
    assert_ne!(newer.invitation_id, first.invitation_id);
    service.sent(&newer).await;
    let first = service
        .invitation(&organization, &first.invitation_id)
        .await;
    assert_eq!(first.state(), InvitationState::Expired);
    assert_eq!(first.end_time, first.expire_time);
    let inspected = service.inspect(&old.token).await.unwrap();
    assert_eq!(inspected.status(), TokenStatus::Expired);
}

#[tokio::test]
async fn ages_are_counted_where_the_organization_is() {
    let mut service = Service::start().await;
    let mut admin = service.admin().await;
    // Somewhere it is another date than in UTC, at any time of the day.
    let (zone, year, month, day): (String, i32, i32, i32) = sqlx::query_as(
        "SELECT zone, extract(year FROM today)::int - 20, extract(month FROM today)::int,
            extract(day FROM today)::int
        FROM (VALUES ('Etc/GMT-14'), ('Etc/GMT+12')) AS zones (zone)
        CROSS JOIN LATERAL (SELECT (now() AT TIME ZONE zone)::date AS today) AS there
        WHERE today <> (now() AT TIME ZONE 'UTC')::date LIMIT 1",
    )
    .fetch_one(&mut admin)
    .await
    .unwrap();
    let is_ahead = zone == "Etc/GMT-14";
    let organization_id = service.organization().await;
    // Twenty years before a 29 February there is another.
    let adults = with_settings(OrganizationSettings {
        minimum_age: Some(20),
        ..Default::default()
    });
    let request = update_organization(&organization_id, &["settings.minimum_age"], adults);
    service.update_organization(request).await;
    let of_age_there = |email: &str| {
        let mut request = new_account(&organization_id, "Ann", email, "");
        request.account.as_mut().unwrap().birth_date = Some(Date { year, month, day });
        request
    };
    // Of age today there: ahead of UTC that is tomorrow, behind it was so yesterday.
    let here = service.accounts.create_account(of_age_there("Lee")).await;
    assert_eq!(here.is_ok(), !is_ahead);

    let set_zone = |zone: &str| {
        let new = with_settings(OrganizationSettings {
            time_zone: Some(zone.to_owned()),
            ..Default::default()
        });
        update_organization(&organization_id, &["settings.time_zone"], new)
    };
    service.update_organization(set_zone(&zone)).await;
    service.create_anyway(of_age_there("Diaz")).await;
    let mut organizations = service.organizations.clone();
    let result = organizations
        .update_organization(set_zone("Mars/Olympus"))
        .await;
    assert_invalid(result, &["organization.settings.time_zone"]);
}

#[tokio::test]
async fn a_raised_minimum_age_blocks_no_other_change() {
    let mut service = Service::start().await;
    let organization_id = service.organization().await;
    let mut request = new_account(&organization_id, "Ann", "Lee", "");
    request.account.as_mut().unwrap().birth_date = Some(Date {
        year: 2000,
        month: 1,
        day: 1,
    });
    let account = service.create(request).await;
    let raised = with_settings(OrganizationSettings {
        minimum_age: Some(60),
        ..Default::default()
    });
    service
        .update_organization(update_organization(
            &organization_id,
            &["settings.minimum_age"],
            raised,
        ))
        .await;
    let update = |path: &str, birth_date: Option<Date>| {
        let new = Account {
            plan: "pro".to_owned(),
            birth_date,
            ..Default::default()
        };
        update_account(&account, &[path], new)
    };
    service.update(update("plan", None)).await;
    let young = Some(Date {
        year: 2001,
        month: 1,
        day: 1,
    });
    let request = update("birth_date", young);
    let result = service.accounts.update_account(request).await;
    assert_refused(
        result,
        Code::InvalidArgument,
        "HOLDER_UNDER_AGE",
        &["account.birth_date"],
    );
}

#[tokio::test]
async fn a_stored_email_survives_a_rule_that_became_stricter() {
    let mut service = Service::start().await;
    let organization_id = service.organization().await;
    let account = service
        .create(new_account(
            &organization_id,
            "Ann",
            "Lee",
            "ann@example.org",
        ))
        .await;
    sqlx::query(
        "UPDATE accounts SET email = 'ann@intranet', email_canonical = 'ann@intranet'
        WHERE account_id = $1::uuid",
    )
    .bind(&account.account_id)
    .execute(&mut service.admin().await)
    .await
    .unwrap();
    let new = Account {
        plan: "pro".to_owned(),
        ..Default::default()
    };
    let updated = service
        .update(update_account(&account, &["plan"], new))
        .await;
    assert_eq!(updated.email.as_deref(), Some("ann@intranet"));
    assert_eq!(updated.plan, "pro");
}

#[tokio::test]
async fn rows_past_their_retention_are_deleted() {
    let mut service = Service::start().await;
    let organization_id = service.organization().await;
    let mut request = new_account(&organization_id, "Ann", "Lee", "ann@example.org");
    request.request_id = uuid::Uuid::now_v7().to_string();
    service.create(request).await;
    let link = service.next_link().await;
    service.activate(&link.token, PASSWORD).await.unwrap();
    let mut admin = service.admin().await;
    sqlx::raw_sql(
        "UPDATE stored_responses SET create_time = now() - interval '25 hours';
        UPDATE tokens SET expire_time = now() - interval '401 days';
        UPDATE audit_events SET occur_time = now() - interval '10 years 1 day';
        INSERT INTO login_sources VALUES ('\\x00', now() - interval '401 days'), ('\\x01', now());
        DELETE FROM login_throttles;
        INSERT INTO login_throttles VALUES ('\\x00', now() - interval '1 second'),
            ('\\x01', now() + interval '1 hour')",
    )
    .execute(&mut admin)
    .await
    .unwrap();
    let stop = CancellationToken::new();
    purge_all(&service.pool, &retention::purges(), &stop).await;
    for (table, left) in [
        ("stored_responses", 0),
        ("tokens", 0),
        ("audit_events", 0),
        ("login_sources", 1),
        ("login_throttles", 1),
    ] {
        let count = format!("SELECT count(*) FROM {table}");
        let rows: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(count))
            .fetch_one(&mut admin)
            .await
            .unwrap();
        assert_eq!(rows, left, "{table}");
    }
}
