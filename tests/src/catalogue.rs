//! What must hold for every table, index and function of a service's database, read from PostgreSQL's catalogue
//! so that what is added later is held to it too.

use sqlx::PgConnection;

use crate::Database;

/// What a service's database may have beyond the rules.
#[derive(Debug)]
pub struct Exceptions<'a> {
    /// Indexes that do not begin with the organization, and why.
    pub indexes: &'a [(&'a str, &'a str)],
    /// What the service may do, and with which tables.
    pub grants: &'a [(&'a str, &'a [&'a str])],
}

/// What breaks a rule, a line each.
///
/// # Errors
/// If the database is away.
pub async fn violations(
    database: &Database,
    exceptions: &Exceptions<'_>,
) -> sqlx::Result<Vec<String>> {
    let mut admin = database.admin().await?;
    let service = database.service();
    let mut found = lines(&mut admin, TABLES, &[]).await?;
    found.extend(lines(&mut admin, INDEXES, &names(exceptions.indexes)).await?);
    let functions: Vec<String> = sqlx::query_scalar(FUNCTIONS).fetch_all(&mut admin).await?;
    found.extend(functions);
    found.extend(lines(&mut admin, FOREIGN_GRANTS, &[service.role()]).await?);
    found.extend(lines(&mut admin, OWNED, &[service.role(), service.login()]).await?);
    found.extend(lines(&mut admin, ATTRIBUTES, &[service.role(), service.login()]).await?);
    let mut expected: Vec<String> = exceptions
        .grants
        .iter()
        .flat_map(|(privileges, tables)| tables.iter().map(move |table| (table, privileges)))
        .map(|(table, privileges)| format!("{table}: {privileges}"))
        .collect();
    expected.sort();
    let granted = lines(&mut admin, GRANTS, &[service.role()]).await?;
    found.extend(difference(&granted, &expected, "granted but not expected"));
    found.extend(difference(&expected, &granted, "expected but not granted"));
    Ok(found)
}

fn names<'a>(exceptions: &[(&'a str, &'a str)]) -> Vec<&'a str> {
    exceptions.iter().map(|(name, _)| *name).collect()
}

fn difference<'a>(
    lines: &'a [String],
    others: &'a [String],
    complaint: &'a str,
) -> impl Iterator<Item = String> + 'a {
    let missing = lines.iter().filter(|line| !others.contains(line));
    missing.map(move |line| format!("{line}: {complaint}"))
}

/// Runs one of the queries below, each of which answers a column of text.
async fn lines(
    admin: &mut PgConnection,
    query: &'static str,
    parameter: &[&str],
) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(query)
        .bind(parameter)
        .fetch_all(admin)
        .await
}

/// Tables whose rows are not protected, also from their owner.
const TABLES: &str = "
    SELECT format('%s: no forced row-level security with a policy', relname) FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
        AND relname <> ALL (array_append($1::text[], '_sqlx_migrations'))
        AND NOT (relrowsecurity AND relforcerowsecurity
            AND EXISTS (SELECT FROM pg_policy WHERE polrelid = pg_class.oid))";

/// Indexes of tables of an organization that do not begin with it.
const INDEXES: &str = "
    SELECT format('%s: does not begin with organization_id', c.relname)
    FROM pg_index i
    JOIN pg_class c ON c.oid = i.indexrelid AND c.relnamespace = 'public'::regnamespace
    JOIN pg_attribute o ON o.attrelid = i.indrelid AND o.attname = 'organization_id'
    WHERE i.indkey[0] <> o.attnum AND c.relname <> ALL ($1::text[])";

/// Functions that are not as the migrations say: everybody may call them, they run as the owner, or they mean
/// something else in another search path.
const FUNCTIONS: &str = "
    SELECT format('%s: %s', proname, complaint)
    FROM pg_proc, LATERAL (VALUES
        (prosecdef, 'runs as its owner'),
        (EXISTS (SELECT FROM aclexplode(coalesce(proacl, acldefault('f', proowner))) WHERE grantee = 0),
            'everybody may call it'),
        (prosqlbody IS NULL, 'its body is a string, which is parsed in the search path of the caller')
    ) AS rule (is_broken, complaint)
    WHERE pronamespace = 'public'::regnamespace AND is_broken";

/// What the service may do with each table.
const GRANTS: &str = "
    SELECT format('%s: %s', relname, string_agg(privilege_type, ', ' ORDER BY privilege_type))
    FROM pg_class, aclexplode(relacl)
    WHERE relnamespace = 'public'::regnamespace AND grantee::regrole::text = ANY ($1::text[])
    GROUP BY relname ORDER BY 1";

/// What others than the owner may do: the service connects, looks into the schema, and uses tables and
/// functions; nobody else does anything.
const FOREIGN_GRANTS: &str = "
    SELECT format('%s: %s for %s', object, privilege_type,
        CASE WHEN grantee = 0 THEN 'everybody' ELSE grantee::regrole::text END)
    FROM (
        SELECT 'the database' AS object, datdba AS owner, ARRAY['CONNECT'] AS allowed,
            coalesce(datacl, acldefault('d', datdba)) AS acl
        FROM pg_database WHERE datname = current_database()
        UNION ALL
        SELECT 'the schema ' || nspname, nspowner, ARRAY['USAGE'], coalesce(nspacl, acldefault('n', nspowner))
        FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
        UNION ALL
        SELECT relname, relowner, ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE'], relacl
        FROM pg_class WHERE relnamespace = 'public'::regnamespace
        UNION ALL
        SELECT attrelid::regclass || '.' || attname, 0, ARRAY[]::text[], attacl
        FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        WHERE relnamespace = 'public'::regnamespace AND attacl IS NOT NULL
        UNION ALL
        SELECT proname, proowner, ARRAY['EXECUTE'], proacl
        FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        UNION ALL
        SELECT 'new objects', defaclrole, ARRAY[]::text[], defaclacl FROM pg_default_acl
    ) AS objects, aclexplode(acl)
    WHERE grantee <> owner AND grantee <> 'pg_database_owner'::regrole
        AND NOT (grantee <> 0 AND grantee::regrole::text = ANY ($1::text[])
            AND privilege_type = ANY (allowed) AND NOT is_grantable)";

/// What the service owns.
const OWNED: &str = "
    SELECT format('%s owns %s', refobjid::regrole, pg_describe_object(classid, objid, objsubid))
    FROM pg_shdepend
    WHERE refclassid = 'pg_authid'::regclass AND deptype = 'o' AND refobjid::regrole::text = ANY ($1::text[])
        AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())";

/// What lifts the service above a plain role.
const ATTRIBUTES: &str = "
    SELECT format('%s is more than a plain role', rolname) FROM pg_roles
    WHERE rolname = ANY ($1::text[])
        AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)
    UNION ALL
    SELECT format('%s is a member of %s', member::regrole, roleid::regrole) FROM pg_auth_members
    WHERE member::regrole::text = ANY ($1::text[]) AND roleid::regrole::text <> ALL ($1::text[])";
