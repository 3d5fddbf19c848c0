//! The tables that both services have are the same in both databases: the runtime's queries on them are checked
//! against one of the two only.

#![expect(clippy::expect_used, reason = "tests say what went wrong by panicking")]

use sqlx::{Connection as _, PgConnection};
use usher_tests::{Database, ServiceName};

const SHARED: [&str; 3] = ["stored_responses", "outbox", "audit_events"];

/// Columns, constraints, indexes, policies and privileges of a table, one text each. The service's role, which
/// differs, is called `service`.
const DEFINITION: &str = r"
    SELECT format('column %s %s not null %s default %s', attname, format_type(atttypid, atttypmod), attnotnull,
        pg_get_expr(adbin, adrelid))
    FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped
    UNION ALL
    SELECT format('constraint %s %s', conname, pg_get_constraintdef(oid))
    FROM pg_constraint WHERE conrelid = $1::regclass
    UNION ALL
    SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = $1::regclass
    UNION ALL
    SELECT format('row security %s %s', relrowsecurity, relforcerowsecurity)
    FROM pg_class WHERE oid = $1::regclass
    UNION ALL
    SELECT format('policy %s %s %s %s using %s check %s', polname, polpermissive, polcmd, polroles,
        pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
    FROM pg_policy WHERE polrelid = $1::regclass
    UNION ALL
    SELECT format('function %s', pg_get_functiondef(pg_proc.oid))
    FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        AND proname IN ('usher_organization', 'usher_is_platform')
    UNION ALL
    SELECT format('privilege service %s', privilege_type)
    FROM pg_class, aclexplode(relacl)
    WHERE pg_class.oid = $1::regclass
        AND pg_get_userbyid(grantee) IN ('account_service', 'notify_service')
    ORDER BY 1";

#[tokio::test]
async fn shared_tables_are_defined_alike() {
    let account = Database::migrated(ServiceName::Account, &account_svc::db::MIGRATIONS).await;
    let account = account.expect("database");
    let notify = Database::migrated(ServiceName::Notify, &notify_svc::db::MIGRATIONS).await;
    let notify = notify.expect("database");
    for table in SHARED {
        let [first, second] = [
            definition(&account.owner_url(), table).await,
            definition(&notify.owner_url(), table).await,
        ];
        assert!(first.len() > 10, "{table} of account-svc: {first:#?}");
        assert_eq!(first, second, "{table}");
    }
}

async fn definition(url: &str, table: &str) -> Vec<String> {
    let mut connection = PgConnection::connect(url).await.expect("connect");
    let definition = sqlx::query_scalar(DEFINITION)
        .bind(table)
        .fetch_all(&mut connection)
        .await
        .expect("catalogue");
    connection.close().await.expect("close");
    definition
}
