use sqlx::PgConnection;
use usher_runtime::database::{Scope, begin};
use uuid::Uuid;

use crate::support::{Service, new_account};

async fn tables(connection: &mut PgConnection) -> Vec<(String, bool, bool, i64)> {
    sqlx::query_as(
        "SELECT c.relname::text, c.relrowsecurity, c.relforcerowsecurity,
            (SELECT count(*) FROM pg_policy WHERE polrelid = c.oid)
        FROM pg_class c
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
            AND c.relname <> '_sqlx_migrations'",
    )
    .fetch_all(connection)
    .await
    .unwrap()
}

#[tokio::test]
async fn every_table_has_a_policy_that_binds_its_owner_too() {
    let service = Service::start().await;
    let tables = tables(&mut service.admin().await).await;
    assert!(tables.len() >= 9, "{tables:?}");
    for (table, enabled, forced, policies) in tables {
        assert!(
            enabled && forced && policies > 0,
            "{table} is not protected"
        );
    }
}

#[tokio::test]
async fn every_table_of_an_organization_is_indexed_by_it_first() {
    let service = Service::start().await;
    let indexes: Vec<String> = sqlx::query_scalar(
        "SELECT i.indexrelid::regclass::text
        FROM pg_index i
        JOIN pg_attribute o ON o.attrelid = i.indrelid AND o.attname = 'organization_id'
        WHERE i.indrelid::regclass::text IN ('accounts', 'invitations', 'audit_events')
            AND i.indkey[0] <> o.attnum AND i.indexrelid::regclass::text NOT IN ('accounts_person', 'audit_events_age')",
    )
    .fetch_all(&mut service.admin().await)
    .await
    .unwrap();
    assert_eq!(indexes, [] as [String; 0]);
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
        let rows: i64 =
            sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}")))
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
async fn the_service_owns_nothing_and_cannot_rewrite_the_audit_log() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    service
        .create(new_account(&organization, "Ann", "Lee", ""))
        .await;
    let owned: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_class WHERE relowner = current_user::regrole::oid",
    )
    .fetch_one(&service.pool)
    .await
    .unwrap();
    assert_eq!(owned, 0);
    for statement in [
        "UPDATE audit_events SET actor = 'nobody'",
        "DELETE FROM accounts",
        "ALTER TABLE accounts DISABLE ROW LEVEL SECURITY",
        "CREATE TABLE mine (id int)",
    ] {
        let mut tx = begin(&service.pool, Scope::Platform).await.unwrap();
        let result = sqlx::query(statement).execute(&mut *tx).await;
        assert!(result.is_err(), "{statement}");
    }
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
        account_svc::db::audit::purge(&mut tx, 10).await.unwrap(),
        before.unsigned_abs()
    );
}

#[tokio::test]
async fn a_service_that_stops_has_published_everything() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    service
        .create(new_account(&organization, "Ann", "Lee", "ann@example.org"))
        .await;
    service.next_letter().await;
    let mut admin = service.admin().await;
    service.stop().await;
    let waiting: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox")
        .fetch_one(&mut admin)
        .await
        .unwrap();
    assert_eq!(waiting, 0);
}
