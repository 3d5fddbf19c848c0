//! The measure of duplicates (`make duplicates`) compares an entry with the accounts that the service compares it with.

#![expect(clippy::expect_used, reason = "tests say what went wrong by panicking")]

#[path = "../examples/duplicates/index.rs"]
#[expect(dead_code, reason = "of the measure")]
mod index;
#[path = "../examples/duplicates/people.rs"]
#[expect(dead_code, reason = "of the measure")]
mod people;

use std::collections::BTreeSet;

use account_svc::{
    db,
    domain::{
        duplicate::{ENOUGH_CANDIDATES, Fingerprint, Identity, KEYS_VERSION, MAX_POSTINGS},
        name::PersonName,
    },
};
use index::{Index, account_id};
use people::People;
use sqlx::PgConnection;
use usher_tests::{Database, ServiceName, random::Random};
use uuid::Uuid;

/// Enough for keys that more accounts have than are read.
const ACCOUNTS: usize = 4_000;
const ENTRIES: usize = 300;
const ORGANIZATION_ID: Uuid = Uuid::from_u128(1);

#[tokio::test]
async fn the_service_and_the_measure_choose_the_same_accounts() {
    let people = People::new().expect("people");
    let mut random = Random::new(1);
    let mut accounts: Vec<Identity> = Vec::new();
    for _ in 0..ACCOUNTS {
        let person = people.person(&mut random, accounts.last());
        accounts.push(person);
    }
    // More of one name than are read by a key, and among the others.
    let namesake = accounts[0].clone();
    for copy in 0..=MAX_POSTINGS + 20 {
        accounts[copy * 7] = namesake.clone();
    }
    // Of each of two equal names more than are read, so that none but the keys of equal names finds them.
    let name = |family: &str| Identity {
        name: PersonName {
            given: "Ottokar".to_owned(),
            family: family.to_owned(),
        },
        ..namesake.clone()
    };
    for copy in 0..MAX_POSTINGS + 20 {
        let family = ["Muller", "Mueller"][copy % 2];
        accounts[copy * 7 + 1] = name(family);
        accounts[copy * 7 + 2] = name(family);
    }
    let database = Database::migrated(ServiceName::Account, &db::MIGRATIONS).await;
    let database = database.expect("database");
    let mut admin = database.admin().await.expect("connect");
    insert(&mut admin, &accounts).await;

    let index = Index::new(&accounts);
    let mut most = 0;
    let strangers: Vec<Identity> = (0..ENTRIES)
        .map(|_| people.person(&mut random, None))
        .collect();
    for entry in strangers.iter().chain([&namesake, &name("Müller")]) {
        let fingerprint = Fingerprint::new(entry);
        let read =
            db::account::find_candidates(&mut admin, ORGANIZATION_ID, &fingerprint, None).await;
        let read: BTreeSet<Uuid> = ids(read.expect("candidates").candidates);
        let chosen: BTreeSet<Uuid> = ids(index.candidates(entry));
        let name = (&entry.name.given, &entry.name.family);
        assert_eq!(read, chosen, "{name:?}");
        most = most.max(read.len());
    }
    assert!(most > ENOUGH_CANDIDATES, "{most}: nothing had to be chosen");
}

fn ids(candidates: Vec<(Uuid, Identity)>) -> BTreeSet<Uuid> {
    candidates.into_iter().map(|(id, _)| id).collect()
}

async fn insert(admin: &mut PgConnection, accounts: &[Identity]) {
    let ids: Vec<Uuid> = (0..accounts.len()).map(account_id).collect();
    let (mut given, mut family, mut birth_dates) = (Vec::new(), Vec::new(), Vec::new());
    let (mut keys, mut key_ids) = (Vec::new(), Vec::new());
    for (id, account) in ids.iter().zip(accounts) {
        given.push(account.name.given.clone());
        family.push(account.name.family.clone());
        birth_dates.push(account.birth_date);
        for key in Fingerprint::new(account).blocking_keys {
            keys.push(key);
            key_ids.push(*id);
        }
    }
    sqlx::query(
        "INSERT INTO accounts (organization_id, account_id, given_name, family_name, birth_date, members, addresses,
            contacts, plan, assigned_staff, attributes, locale, keys_version)
        SELECT $1, account_id, given_name, family_name, birth_date, '[]', '[]', '[]', '', '', '{}', '', $2
        FROM unnest($3::uuid[], $4::text[], $5::text[], $6::date[]) AS new (account_id, given_name, family_name,
            birth_date)",
    )
    .bind(ORGANIZATION_ID)
    .bind(KEYS_VERSION)
    .bind(ids)
    .bind(given)
    .bind(family)
    .bind(birth_dates)
    .execute(&mut *admin)
    .await
    .expect("accounts");
    sqlx::query(
        "INSERT INTO duplicate_keys (organization_id, key, account_id)
        SELECT $1, key, account_id FROM unnest($2::bigint[], $3::uuid[]) AS new (key, account_id)",
    )
    .bind(ORGANIZATION_ID)
    .bind(keys)
    .bind(key_ids)
    .execute(admin)
    .await
    .expect("keys");
}
