//! What somebody can do who has stolen the login of a service: no more than the service itself.

use sqlx::{AssertSqlSafe, PgConnection, Row as _};
use uuid::Uuid;

use crate::Database;

/// SQLSTATE `insufficient_privilege`.
const REFUSED: &str = "42501";

/// Databases that every server has, and that PostgreSQL lets everybody in.
const MAINTENANCE_DATABASES: [&str; 2] = ["postgres", "template1"];

/// Ways to more, which must be refused in every database.
const STATEMENTS: &[&str] = &[
    // Objects of one's own, for others to stumble over.
    "CREATE TEMPORARY TABLE persons (email text)",
    "CREATE TEMPORARY VIEW persons AS SELECT 'x' AS email",
    "CREATE FUNCTION pg_temp.evil() RETURNS text LANGUAGE sql AS $$ SELECT 'x' $$",
    "CREATE FUNCTION public.evil() RETURNS text LANGUAGE sql AS $$ SELECT 'x' $$",
    "CREATE TABLE public.mine (id integer)",
    "CREATE SCHEMA mine",
    "CREATE EXTENSION pgcrypto",
    "CREATE PUBLICATION mine FOR ALL TABLES",
    "CREATE EVENT TRIGGER mine ON ddl_command_start EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    // Other roles, and what only they may do.
    "SET ROLE usher_owner",
    "SET SESSION AUTHORIZATION usher_owner",
    "GRANT usher_owner TO CURRENT_USER",
    "CREATE ROLE mine",
    "ALTER ROLE CURRENT_USER BYPASSRLS",
    "SET session_replication_role = replica",
    "SET log_statement = 'none'",
    "SELECT * FROM pg_authid",
    "SELECT * FROM public._sqlx_migrations",
    // The server's files and programs.
    "SELECT pg_read_file('postgresql.conf')",
    "SELECT pg_ls_dir('.')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT lo_export(1, '/tmp/usher-attack')",
    "COPY (SELECT 1) TO '/tmp/usher-attack'",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    // The audit log, at another time than now: never removed, or removed at once.
    "INSERT INTO public.audit_events (organization_id, audit_event_id, actor, action, details, trace_id, occur_time)
        VALUES (gen_random_uuid(), gen_random_uuid(), 'x', 'x', '{}', '', now() + interval '200 years')",
    "INSERT INTO public.audit_events (organization_id, audit_event_id, actor, action, details, trace_id, occur_time)
        VALUES (gen_random_uuid(), gen_random_uuid(), 'x', 'x', '{}', '', now() - interval '11 years')",
    "UPDATE public.audit_events SET actor = 'nobody'",
];

/// Ways to more with each table.
const TABLE_STATEMENTS: &[&str] = &[
    "TRUNCATE public.{table}",
    "DROP TABLE public.{table}",
    "ALTER TABLE public.{table} DISABLE ROW LEVEL SECURITY",
    "ALTER TABLE public.{table} NO FORCE ROW LEVEL SECURITY",
    "ALTER TABLE public.{table} OWNER TO CURRENT_USER",
    "ALTER TABLE public.{table} ADD COLUMN mine integer",
    "CREATE POLICY mine ON public.{table} USING (true)",
    "CREATE RULE mine AS ON SELECT TO public.{table} DO INSTEAD SELECT 1",
    "CREATE INDEX ON public.{table} ((1))",
    "CREATE TRIGGER mine BEFORE INSERT ON public.{table} FOR EACH ROW
        EXECUTE FUNCTION suppress_redundant_updates_trigger()",
];

/// Tries everything with the service's login, as it is and as the service's role, in the platform's scope; and
/// the `further` statements. Returns what was not refused, a line each.
///
/// # Errors
/// If the database is away.
pub async fn successes(database: &Database, further: &[&str]) -> sqlx::Result<Vec<String>> {
    let mut login = database.stolen_login().await?;
    let mut statements: Vec<String> = STATEMENTS.iter().map(|&text| text.to_owned()).collect();
    statements.extend(further.iter().map(|&text| text.to_owned()));
    for table in tables(database).await? {
        let of_table = TABLE_STATEMENTS.iter();
        statements.extend(of_table.map(|text| text.replace("{table}", &table.name)));
    }
    let as_role = format!("SET LOCAL ROLE {};", database.service().role());
    let mut successes = Vec::new();
    for statement in &statements {
        for become_role in ["", &as_role] {
            let code = attempt(&mut login, become_role, statement).await?;
            if code != REFUSED {
                successes.push(format!("{become_role} {statement}: {code}"));
            }
        }
    }
    for name in MAINTENANCE_DATABASES {
        if database.stolen_login_to(name).await.is_ok() {
            successes.push(format!("connects to the database {name}"));
        }
    }
    Ok(successes)
}

/// Runs a statement, takes it back, and returns its SQLSTATE.
async fn attempt(
    login: &mut PgConnection,
    become_role: &str,
    statement: &str,
) -> sqlx::Result<String> {
    let text = format!("BEGIN; SET LOCAL usher.scope = 'platform'; {become_role} {statement}");
    let result = sqlx::raw_sql(AssertSqlSafe(text))
        .execute(&mut *login)
        .await;
    sqlx::raw_sql("ROLLBACK").execute(login).await?;
    match result {
        Ok(_) => Ok("00000".to_owned()),
        Err(sqlx::Error::Database(error)) => Ok(error.code().unwrap_or_default().into_owned()),
        Err(error) => Err(error),
    }
}

/// What the service's login sees in the scope of an organization that it should not: rows of others, and
/// tables of the platform but for those in `shared`. A line each, also for a table that has no such rows, of which
/// nothing is known.
///
/// # Errors
/// If the database is away.
pub async fn foreign_rows(
    database: &Database,
    organization_id: Uuid,
    shared: &[&str],
) -> sqlx::Result<Vec<String>> {
    let mut login = database.stolen_login().await?;
    let mut admin = database.admin().await?;
    let mut seen = Vec::new();
    for Table {
        name,
        has_organization,
    } in tables(database).await?
    {
        if shared.contains(&name.as_str()) {
            continue;
        }
        let condition = if has_organization {
            format!("organization_id <> '{organization_id}'")
        } else {
            "true".to_owned()
        };
        let set = format!("BEGIN; SET LOCAL usher.organization_id = '{organization_id}'");
        let count = format!("SELECT count(*) FROM public.{name} WHERE {condition}");
        sqlx::raw_sql(AssertSqlSafe(set))
            .execute(&mut login)
            .await?;
        let rows: i64 = sqlx::query_scalar(AssertSqlSafe(count))
            .fetch_one(&mut login)
            .await?;
        sqlx::raw_sql("ROLLBACK").execute(&mut login).await?;
        if rows > 0 {
            seen.push(format!("{name}: {rows} rows"));
        }
        let exist = format!("SELECT EXISTS (SELECT FROM public.{name} WHERE {condition})");
        let exist: bool = sqlx::query_scalar(AssertSqlSafe(exist))
            .fetch_one(&mut admin)
            .await?;
        if !exist {
            seen.push(format!("{name}: has no rows that could be seen"));
        }
    }
    Ok(seen)
}

struct Table {
    name: String,
    has_organization: bool,
}

async fn tables(database: &Database) -> sqlx::Result<Vec<Table>> {
    let rows = sqlx::query(
        "SELECT relname::text AS name, EXISTS (SELECT FROM pg_attribute
            WHERE attrelid = pg_class.oid AND attname = 'organization_id') AS has_organization
        FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
            AND relname <> '_sqlx_migrations'",
    )
    .fetch_all(&mut database.admin().await?)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Table {
                name: row.try_get("name")?,
                has_organization: row.try_get("has_organization")?,
            })
        })
        .collect()
}
