//! What the tables show, and to whom.

use usher_proto::notify::v1 as proto;
use usher_runtime::{
    bus::EventBus,
    database::{Scope, begin},
};
use usher_tests::{
    attack,
    catalogue::{self, Exceptions},
};
use uuid::Uuid;

use crate::{
    requests::token_of,
    scripted_smtp::{At, Fault},
    support::{Service, database, eventually, pool},
};

const EXCEPTIONS: Exceptions<'_> = Exceptions {
    indexes: &[
        ("deliveries_id", "purged in all organizations"),
        ("deliveries_kept_token", "wiped in all organizations"),
        (
            "delivery_queue_ready",
            "the sender works for all organizations",
        ),
        (
            "delivery_queue_waiting",
            "the sender works for all organizations",
        ),
        ("outbox_pkey", "the relay works for all organizations"),
        ("revocations_receive_time", "purged in all organizations"),
        ("stored_responses_age", "purged in all organizations"),
        ("audit_events_age", "purged in all organizations"),
    ],
    grants: &[
        (
            "DELETE, INSERT, SELECT, UPDATE",
            &[
                "inbox",
                "deliveries",
                "delivery_queue",
                "revocations",
                "suppressions",
                "recipient_slots",
                "throttles",
                "stored_responses",
                "outbox",
            ],
        ),
        // An entry is never changed, and row-level security says when it can be removed.
        ("DELETE, INSERT, SELECT", &["audit_events"]),
    ],
};

#[tokio::test]
async fn the_catalogue_keeps_the_rules() {
    let database = database().await;
    let violations = catalogue::violations(&database, &EXCEPTIONS).await.unwrap();
    assert_eq!(violations, [] as [String; 0]);
}

#[tokio::test]
async fn a_stolen_login_gets_no_further() {
    let database = database().await;
    let further = ["CREATE TABLE public.mine (id uuid REFERENCES public.inbox)"];
    let successes = attack::successes(&database, &further).await.unwrap();
    assert_eq!(successes, [] as [String; 0]);
    let other = database.login_of("account_login").await;
    assert!(other.is_err(), "account-svc's login gets in");
}

#[tokio::test]
async fn rows_show_in_their_scope_only() {
    let service = Service::start(&[]).await;
    let request = service.request("zoe@example.org");
    service.publish(request.message()).await;
    service.reaches(&request, proto::DeliveryState::Sent).await;

    // What the service does not write by itself here, or takes away again.
    sqlx::raw_sql(
        "INSERT INTO stored_responses (organization_id, request_id, request_hash, response)
            VALUES (gen_random_uuid(), gen_random_uuid(), 'h', '');
        INSERT INTO outbox (event_id, organization_id, event_type, payload, retry_time)
            VALUES (gen_random_uuid(), gen_random_uuid(), 'test', '', 'infinity');
        INSERT INTO audit_events (organization_id, audit_event_id, actor, action, details, trace_id)
            VALUES (gen_random_uuid(), gen_random_uuid(), 'staff', 'delivery.cancelled', '{}', '');
        INSERT INTO revocations (organization_id, invitation_id, send_number)
            VALUES (gen_random_uuid(), gen_random_uuid(), 1);
        INSERT INTO suppressions (organization_id, recipient, reason)
            VALUES (gen_random_uuid(), 'ann@example.org', 'STAFF');
        INSERT INTO throttles (limit_name, key_hash, arrival_micros) VALUES ('domain', 'h', 9e15);
        INSERT INTO delivery_queue (organization_id, delivery_id, mail_class, next_attempt_time, ready)
            VALUES (gen_random_uuid(), gen_random_uuid(), 'BULK', 'infinity', false)",
    )
    .execute(&mut service.database.admin().await.unwrap())
    .await
    .unwrap();
    let foreign = attack::foreign_rows(&service.database, Uuid::now_v7(), &[]).await;
    assert_eq!(foreign.unwrap(), [] as [String; 0]);

    let pool = pool(&service.database);
    let count = "SELECT count(*) FROM deliveries";
    let without: i64 = sqlx::query_scalar(count).fetch_one(&pool).await.unwrap();
    assert_eq!(without, 0);
    for (scope, expected) in [
        (Scope::Organization(request.organization_id), 1),
        (Scope::Organization(Uuid::now_v7()), 0),
        (Scope::Platform, 1),
    ] {
        let mut transaction = begin(&pool, scope).await.unwrap();
        let seen: i64 = sqlx::query_scalar(count)
            .fetch_one(&mut *transaction)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(seen, expected, "{scope:?}");
    }
    // An organization does not see what belongs to none.
    let mut transaction = begin(&pool, Scope::Organization(request.organization_id))
        .await
        .unwrap();
    let inbox: i64 = sqlx::query_scalar("SELECT count(*) FROM inbox")
        .fetch_one(&mut *transaction)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(inbox, 0);
    // After a transaction the connection shows nothing again.
    let without: i64 = sqlx::query_scalar(count).fetch_one(&pool).await.unwrap();
    assert_eq!(without, 0);
    pool.close().await;
    service.stop().await;
}

#[tokio::test]
async fn no_table_ever_holds_a_token_and_what_is_sent_no_seal() {
    let service = Service::start(&["--recipient-gap=0s", "--recipient-limit=1/24h"]).await;
    let sent = service.request("zoe@example.org");
    let failed = service.request("ann@example.org");
    let waiting = service.request("zoe@example.org");
    service.publish(sent.message()).await;
    service.reaches(&sent, proto::DeliveryState::Sent).await;
    service
        .smtp
        .fail_once(At::Dot, Fault::Reply("554 5.6.0 no"));
    service.publish(failed.message()).await;
    service.reaches(&failed, proto::DeliveryState::Failed).await;
    service.publish(waiting.message()).await;
    service
        .reaches(&waiting, proto::DeliveryState::Throttled)
        .await;

    let mut admin = service.database.admin().await.unwrap();
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class
         WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'",
    )
    .fetch_all(&mut admin)
    .await
    .unwrap();
    let mut dump = String::new();
    for table in tables {
        let statement =
            format!("SELECT coalesce(string_agg(t::text, E'\\n'), '') FROM {table} AS t");
        let rows: String = sqlx::query_scalar(sqlx::AssertSqlSafe(statement))
            .fetch_one(&mut admin)
            .await
            .unwrap();
        dump.push_str(&rows);
    }
    assert!(
        dump.contains(&sent.requested.invitation_id),
        "the dump is a dump"
    );
    for request in [&sent, &failed, &waiting] {
        let token = token_of(&request.requested.invitation_id);
        assert!(!dump.contains(&token));
        assert!(!dump.contains(&hex(token.as_bytes())));
        let ciphertext = &request.requested.sealed_token.as_ref().unwrap().ciphertext;
        let is_kept = dump.contains(&hex(ciphertext));
        // A failed one can be sent again.
        assert_eq!(is_kept, request.event_id != sent.event_id);
    }
    service.stop().await;
}

#[tokio::test]
async fn old_rows_are_deleted_and_others_stay() {
    let database = database().await;
    let mut owner = database.admin().await.unwrap();
    // Of each table one row that is old enough and one that is not; of the emails also an old one that is
    // still to be sent.
    sqlx::raw_sql(
        "INSERT INTO inbox (event_id, receive_time)
            SELECT gen_random_uuid(), now() - age FROM unnest(ARRAY['29 days', '31 days']::interval[]) AS age;
         INSERT INTO throttles (limit_name, key_hash, arrival_micros)
            SELECT 'domain', sha256(age::text::bytea),
                (extract(epoch FROM now() - age) * 1000000)::bigint
            FROM unnest(ARRAY['0 hours', '2 hours']::interval[]) AS age;
         INSERT INTO revocations (organization_id, invitation_id, send_number, receive_time)
            SELECT gen_random_uuid(), gen_random_uuid(), 1, now() - age
            FROM unnest(ARRAY['399 days', '401 days']::interval[]) AS age;
         INSERT INTO stored_responses (organization_id, request_id, request_hash, response, create_time)
            SELECT gen_random_uuid(), gen_random_uuid(), 'h', '', now() - age
            FROM unnest(ARRAY['23 hours', '25 hours']::interval[]) AS age;
         INSERT INTO audit_events (organization_id, audit_event_id, actor, action, details, trace_id, occur_time)
            SELECT gen_random_uuid(), gen_random_uuid(), 'staff', 'delivery.cancelled', '{}', '', now() - age
            FROM unnest(ARRAY['9 years', '10 years 1 day']::interval[]) AS age;
         INSERT INTO deliveries (organization_id, delivery_id, invitation_id, send_number, kind, mail_class,
                locale, recipient, content, expire_time, state, encapsulated_key, ciphertext)
            SELECT gen_random_uuid(),
                (lpad(to_hex((extract(epoch FROM now() - age) * 1000)::bigint), 12, '0')
                    || '7000800000000000000' || number)::uuid,
                gen_random_uuid(), 1, 'ACTIVATION', 'INTERACTIVE', 'en', 'zoe@old.example', '{}',
                now() + lifetime, state, CASE WHEN state <> 'SENT' THEN 'k'::bytea END,
                CASE WHEN state <> 'SENT' THEN 'c'::bytea END
            FROM (VALUES (1, interval '39 days', 'SENT', interval '1 day'),
                (2, interval '41 days', 'SENT', interval '1 day'), (3, interval '41 days', 'QUEUED', interval '1 day'),
                (4, interval '1 day', 'FAILED', interval '1 day'), (5, interval '1 day', 'FAILED', interval '-1 day'))
                AS email (number, age, state, lifetime);
         INSERT INTO delivery_queue (organization_id, delivery_id, mail_class, next_attempt_time, ready)
            SELECT organization_id, delivery_id, mail_class, now() + interval '1 hour', false
            FROM deliveries WHERE state = 'QUEUED'",
    )
    .execute(&mut owner)
    .await
    .unwrap();
    drop(owner);
    let service = Service::start_on(
        database,
        EventBus::in_process(),
        &["--delivery-retention=40days"],
    )
    .await;
    let mut owner = service.database.admin().await.unwrap();
    for (table, kept) in [
        ("inbox", 1_i64),
        ("throttles", 1),
        ("revocations", 1),
        ("stored_responses", 1),
        ("audit_events", 1),
        ("deliveries", 4),
        ("deliveries WHERE ciphertext IS NOT NULL", 2),
    ] {
        let count = format!("SELECT count(*) FROM {table}");
        eventually("old rows are gone", async || {
            let rows: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(count.as_str()))
                .fetch_one(&mut owner)
                .await
                .unwrap();
            assert!(rows >= kept, "{table}: too many are gone");
            rows == kept
        })
        .await;
    }
    let waits: bool = sqlx::query_scalar("SELECT bool_or(state = 'QUEUED') FROM deliveries")
        .fetch_one(&mut owner)
        .await
        .unwrap();
    assert!(waits, "an email that is still to be sent is gone");
    drop(owner);
    service.stop().await;
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}
