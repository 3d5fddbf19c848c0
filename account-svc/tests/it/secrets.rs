use sqlx::AssertSqlSafe;

use crate::support::{PASSWORD, Service, new_account};

#[tokio::test]
async fn no_table_holds_a_token_or_a_password() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let account = service
        .create(new_account(&organization, "Ann", "Lee", "ann@example.org"))
        .await;
    let used = service.next_link().await;
    service
        .sent(account.last_invitation.as_ref().unwrap())
        .await;
    service.invite(&account).await;
    let used_again = service.next_link().await;
    service.activate(&used_again.token, PASSWORD).await.unwrap();
    service
        .authenticate(&organization, "ann@example.org", PASSWORD)
        .await
        .unwrap();
    service
        .create(new_account(&organization, "Bo", "Diaz", "bo@example.org"))
        .await;

    let mut admin = service.admin().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT table_name::text FROM information_schema.tables
        WHERE table_schema = 'public' AND table_type = 'BASE TABLE'",
    )
    .fetch_all(&mut admin)
    .await
    .unwrap();
    let mut dump = String::new();
    for table in &tables {
        let rows: Vec<String> = sqlx::query_scalar(AssertSqlSafe(format!(
            "SELECT row::text FROM {table} AS row"
        )))
        .fetch_all(&mut admin)
        .await
        .unwrap();
        dump.extend(rows);
    }
    assert!(dump.contains("ann@example.org"), "the dump holds the data");
    // Nobody has taken the last event: it is still in the outbox, with its token.
    assert!(
        dump.contains("invitation.requested.v1"),
        "the dump holds an event"
    );
    let waiting = service.next_link().await;
    for secret in [&used.token, &used_again.token, &waiting.token, PASSWORD] {
        assert!(!dump.contains(secret));
        // PostgreSQL prints bytes in hexadecimal.
        assert!(!dump.contains(&data_encoding::HEXLOWER.encode(secret.as_bytes())));
    }
}
