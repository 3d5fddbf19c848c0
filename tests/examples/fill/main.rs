//! Fills databases like those of a large installation, to look at plans and to measure:
//! `cargo run --release -p usher-tests --example fill -- account_large [notify_large]`.
//!
//! Databases of these names on the server at `DATABASE_URL` are dropped and made again. The first
//! organization has 1,000,000 accounts and the next 100 have 100 each; a tenth of the names covers half
//! of the people. `FILL_ACCOUNTS` sets another number of accounts.

#![expect(clippy::print_stdout, reason = "says what it does")]

mod people;

use std::{fmt::Write as _, time::Instant};

use account_svc::domain::duplicate::DuplicateRules;
use anyhow::Context as _;
use sqlx::{AssertSqlSafe, PgConnection};
use usher_tests::{Database, ServiceName};
use uuid::Uuid;

use self::people::{Client, SMALL_ORGANIZATIONS};

/// Rows that are sent at a time.
const CHUNK: usize = 50_000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut names = std::env::args().skip(1);
    let account = names.next().context("name the database of account-svc")?;
    let accounts = match std::env::var("FILL_ACCOUNTS") {
        Ok(count) => count.parse().context("FILL_ACCOUNTS")?,
        Err(_) => 1_000_000,
    };
    let started = Instant::now();

    let database = Database::open(ServiceName::Account, &account).await?;
    database.recreate().await?;
    account_svc::app::migrate(&database.owner_url().into()).await?;
    let mut connection = database.admin().await?;
    fill_accounts(&mut connection, accounts).await?;
    run(&mut connection, include_str!("account.sql")).await?;
    vacuum(&mut connection).await?;
    println!("{account}: {accounts} accounts, {:?}", started.elapsed());

    if let Some(notify) = names.next() {
        let database = Database::open(ServiceName::Notify, &notify).await?;
        database.recreate().await?;
        notify_svc::app::migrate(&database.owner_url().into()).await?;
        let mut connection = database.admin().await?;
        run(&mut connection, include_str!("notify.sql")).await?;
        vacuum(&mut connection).await?;
        println!("{notify}: {:?}", started.elapsed());
    }
    Ok(())
}

/// As autovacuum does in time, but for the outbox, whose dead rows stay.
async fn vacuum(connection: &mut PgConnection) -> anyhow::Result<()> {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'outbox'",
    )
    .fetch_all(&mut *connection)
    .await?;
    run(connection, &format!("VACUUM ANALYZE {}", tables.join(", "))).await?;
    run(connection, "ANALYZE outbox").await
}

async fn run(connection: &mut PgConnection, statements: &str) -> anyhow::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))
        .execute(connection)
        .await?;
    Ok(())
}

async fn fill_accounts(connection: &mut PgConnection, accounts: usize) -> anyhow::Result<()> {
    let (front_desk, import) = (DuplicateRules::FRONT_DESK, DuplicateRules::IMPORT);
    let organizations = (0..=SMALL_ORGANIZATIONS).map(|index| {
        let id = people::organization_id(index);
        format!(
            "{id}\torganization-{index}\tOrganization {index}\ten\thttps://portal.example\t{{}}\t\t\t\t\t18\tUTC\t\
             2592000\t864000\t63072000\t[]\t{}\t{}\t{}\t{}\n",
            front_desk.threshold, front_desk.expected_share, import.threshold, import.expected_share,
        )
    });
    let columns = "organizations (organization_id, slug, display_name, default_locale, portal_url, \
        allowed_return_origins, sender_name, reply_to, logo_url, color, minimum_age, \
        time_zone, invitation_lifetime_seconds, reinvite_after_seconds, link_prompt_lifetime_seconds, reminders, \
        front_desk_threshold, front_desk_expected_share, import_threshold, import_expected_share)";
    copy(connection, columns, organizations).await?;

    let clients: Vec<Client> = people::clients(accounts).collect();
    let persons = clients.iter().filter_map(Client::person_row);
    copy(connection, "persons (person_id, email)", persons).await?;
    run(
        connection,
        "INSERT INTO proven_emails SELECT sha256(email::bytea) FROM persons",
    )
    .await?;

    let columns = "accounts (organization_id, account_id, given_name, family_name, email, \
        email_canonical, birth_date, members, addresses, contacts, plan, assigned_staff, attributes, locale, \
        given_name_hash, family_name_hash, duplicate_keys, keys_version, last_invitation_id, person_id, activate_time, close_time, \
        create_time)";
    copy(connection, columns, clients.iter().map(Client::account_row)).await?;

    // Keys come in no order: an index that is larger than the cache is built much faster afterwards.
    let drop_index = "ALTER TABLE duplicate_keys DROP CONSTRAINT duplicate_keys_pkey";
    run(connection, drop_index).await?;
    let columns = "duplicate_keys (organization_id, key, account_id)";
    copy(connection, columns, clients.iter().map(Client::key_rows)).await?;
    let add_index = "ALTER TABLE duplicate_keys ADD PRIMARY KEY (organization_id, key, account_id)";
    run(connection, add_index).await?;

    let columns = "invitations (organization_id, invitation_id, account_id, kind, recipient, \
        recipient_canonical, locale, requested_by, form_id, return_url, delivery_state, expire_time, \
        end_state, end_time, create_time)";
    let invitations = clients.iter().filter_map(Client::invitation_row);
    copy(connection, columns, invitations).await
}

async fn copy(
    connection: &mut PgConnection,
    columns: &str,
    rows: impl Iterator<Item = String>,
) -> anyhow::Result<()> {
    let statement = format!("COPY {columns} FROM STDIN");
    let mut copy = connection.copy_in_raw(&statement).await?;
    let mut rows = rows.peekable();
    while rows.peek().is_some() {
        let mut chunk = String::new();
        for row in rows.by_ref().take(CHUNK) {
            write!(chunk, "{row}")?;
        }
        copy.send(chunk.into_bytes()).await?;
    }
    copy.finish().await?;
    Ok(())
}

/// A version 7 UUID of the moment `age` seconds before today, the `number`th of its kind.
fn id(age: u64, kind: u16, number: usize) -> Uuid {
    const TODAY: u64 = 1_790_000_000;
    let millis = (TODAY - age) * 1_000;
    let number = number as u64;
    Uuid::from_u64_pair(
        millis << 16 | 0x7000 | u64::from(kind),
        0x8000_0000_0000_0000 | number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 2,
    )
}
