use sqlx::AssertSqlSafe;
use usher_runtime::database::{Scope, begin};
use usher_tests::{
    attack,
    catalogue::{self, Exceptions},
};
use uuid::Uuid;

use crate::support::{PASSWORD, Service, database, new_account};

const EXCEPTIONS: Exceptions<'_> = Exceptions {
    indexes: &[
        ("organizations_slug_key", "slugs are unique on the platform"),
        (
            "accounts_person",
            "a Person's accounts in all organizations",
        ),
        (
            "tokens_pkey",
            "a link is looked up before its organization is known",
        ),
        ("outbox_pkey", "the relay works for all organizations"),
        ("tokens_age", "purged in all organizations"),
        ("stored_responses_age", "purged in all organizations"),
        ("audit_events_age", "purged in all organizations"),
    ],
    grants: &[
        (
            "INSERT, SELECT, UPDATE",
            &[
                "organizations",
                "persons",
                "credentials",
                "accounts",
                "invitations",
            ],
        ),
        (
            "DELETE, INSERT, SELECT, UPDATE",
            &[
                "duplicate_keys",
                "name_frequencies",
                "name_counts",
                "tokens",
                "stored_responses",
                "outbox",
                "login_throttles",
                "login_sources",
            ],
        ),
        // An entry is never changed, and row-level security says when it can be removed.
        ("DELETE, INSERT, SELECT", &["audit_events"]),
        ("INSERT, SELECT", &["proven_emails"]),
    ],
};

#[tokio::test]
async fn tables_indexes_and_functions_follow_the_rules() {
    let database = database().await;
    let violations = catalogue::violations(&database, &EXCEPTIONS).await.unwrap();
    assert_eq!(violations, [] as [String; 0]);
}

#[tokio::test]
async fn a_stolen_login_does_no_more_than_the_service() {
    let database = database().await;
    let further = [
        "DELETE FROM accounts",
        "DELETE FROM persons",
        "CREATE TABLE public.mine (id uuid REFERENCES public.persons)",
        "DELETE FROM proven_emails",
        "CREATE OR REPLACE FUNCTION public.usher_is_platform() RETURNS boolean
            LANGUAGE sql RETURN true",
    ];
    let successes = attack::successes(&database, &further).await.unwrap();
    assert_eq!(successes, [] as [String; 0]);
    let other = database.login_of("notify_login").await;
    assert!(other.is_err(), "notify-svc's login gets in");
}

#[tokio::test]
async fn a_stolen_login_sees_no_other_organization_from_inside_one() {
    let mut service = Service::start().await;
    let (one, other) = (service.organization().await, service.organization().await);
    for organization in [&one, &other] {
        let email = format!("{organization}@example.org");
        let request = new_account(organization, "Ann", "Lee", &email);
        service.create(request).await;
        let link = service.next_link().await;
        service.activate(&link.token, PASSWORD).await.unwrap();
        let login = service.authenticate(organization, &email, PASSWORD).await;
        login.unwrap();
    }
    // What the service does not write by itself here, or takes away again.
    sqlx::raw_sql(
        "INSERT INTO stored_responses (organization_id, request_id, request_hash, response)
            VALUES (gen_random_uuid(), gen_random_uuid(), 'h', '');
        INSERT INTO name_frequencies (organization_id, name_hash, as_given_name, as_family_name)
            VALUES (gen_random_uuid(), 1, 1, 1);
        INSERT INTO name_counts (organization_id, accounts, count_time, next_count_time, keys_version)
            VALUES (gen_random_uuid(), 1, now(), now(), 1);
        INSERT INTO outbox (event_id, organization_id, event_type, payload, retry_time)
            VALUES (gen_random_uuid(), gen_random_uuid(), 'test', '', 'infinity');
        INSERT INTO login_throttles (throttle_key, arrival_time) VALUES ('k', now() + interval '1 hour');
        INSERT INTO login_sources (source_key) VALUES ('k')",
    )
    .execute(&mut service.database.admin().await.unwrap())
    .await
    .unwrap();
    let one = Uuid::parse_str(&one).unwrap();
    let seen = attack::foreign_rows(&service.database, one, &["persons", "proven_emails"]).await;
    assert_eq!(seen.unwrap(), [] as [String; 0]);

    let mut login = service.database.stolen_login().await.unwrap();
    let inside = format!("BEGIN; SET LOCAL usher.organization_id = '{one}'");
    sqlx::raw_sql(AssertSqlSafe(inside))
        .execute(&mut login)
        .await
        .unwrap();
    let persons: Vec<String> = sqlx::query_scalar("SELECT email FROM persons")
        .fetch_all(&mut login)
        .await
        .unwrap();
    assert_eq!(persons, [format!("{one}@example.org")]);
    let stolen = sqlx::query("UPDATE accounts SET organization_id = $1::uuid")
        .bind(&other)
        .execute(&mut login)
        .await
        .unwrap_err();
    let stolen = stolen.as_database_error().unwrap();
    assert_eq!(stolen.code().as_deref(), Some("42501"), "{stolen}");
}

#[tokio::test]
async fn a_query_without_a_scope_sees_no_rows() {
    let mut service = Service::start().await;
    let (one, other) = (service.organization().await, service.organization().await);
    service
        .create(new_account(&one, "Ann", "Lee", "ann@example.org"))
        .await;
    service.create(new_account(&other, "Bo", "Diaz", "")).await;

    let count = "SELECT count(*) FROM accounts";
    let without: i64 = sqlx::query_scalar(count)
        .fetch_one(&service.pool)
        .await
        .unwrap();
    assert_eq!(without, 0);
    for table in [
        "organizations",
        "invitations",
        "tokens",
        "audit_events",
        "outbox",
        "persons",
    ] {
        let rows: i64 = sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {table}")))
            .fetch_one(&service.pool)
            .await
            .unwrap();
        assert_eq!(rows, 0, "{table}");
    }
    let organization = Scope::Organization(Uuid::parse_str(&one).unwrap());
    let mut tx = begin(&service.pool, organization).await.unwrap();
    let names: Vec<String> = sqlx::query_scalar("SELECT given_name FROM accounts")
        .fetch_all(&mut *tx)
        .await
        .unwrap();
    assert_eq!(names, ["Ann"]);
    // Nor can it write into another organization's list.
    let stolen = sqlx::query("UPDATE accounts SET organization_id = $1::uuid")
        .bind(&other)
        .execute(&mut *tx)
        .await;
    assert!(stolen.is_err());
    drop(tx);
    let mut tx = begin(&service.pool, Scope::Platform).await.unwrap();
    let all: i64 = sqlx::query_scalar(count).fetch_one(&mut *tx).await.unwrap();
    assert_eq!(all, 2);
}

#[tokio::test]
async fn an_entry_of_the_audit_log_stays_for_ten_years() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let mut admin = service.admin().await;
    let count = "SELECT count(*) FROM audit_events";
    let before: i64 = sqlx::query_scalar(count)
        .fetch_one(&mut admin)
        .await
        .unwrap();
    assert!(before > 0, "{organization} left no entry");
    let mut tx = begin(&service.pool, Scope::Platform).await.unwrap();
    sqlx::query("DELETE FROM audit_events")
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let after: i64 = sqlx::query_scalar(count)
        .fetch_one(&mut admin)
        .await
        .unwrap();
    assert_eq!(after, before);

    sqlx::query("UPDATE audit_events SET occur_time = now() - interval '10 years 1 day'")
        .execute(&mut admin)
        .await
        .unwrap();
    let mut tx = begin(&service.pool, Scope::Platform).await.unwrap();
    assert_eq!(
        usher_runtime::audit::purge(&mut tx, 10).await.unwrap(),
        before.unsigned_abs()
    );
}

#[tokio::test]
async fn a_service_that_stops_has_published_everything() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let mut admin = service.admin().await;
    // The relay passes over what is written now.
    sqlx::raw_sql("ALTER TABLE outbox ALTER retry_time SET DEFAULT 'infinity'")
        .execute(&mut admin)
        .await
        .unwrap();
    // Without an email: its event would wait for a consumer.
    service
        .create(new_account(&organization, "Ann", "Lee", ""))
        .await;
    let released = sqlx::query("UPDATE outbox SET retry_time = '-infinity'")
        .execute(&mut admin)
        .await
        .unwrap();
    assert!(released.rows_affected() > 0, "nothing was left to publish");
    let database = service.stop().await;
    let waiting: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox")
        .fetch_one(&mut admin)
        .await
        .unwrap();
    assert_eq!(waiting, 0);
    drop(database);
}
