//! How often names occur in an organization: counted in the background.

use std::time::{Duration, Instant};

use account_svc::db::name_frequency::{self, Count};
use sqlx::PgConnection;
use usher_proto::account::v1::{Account, CreateAccountRequest, FieldEvidence};
use usher_runtime::database::{Scope, begin};
use uuid::Uuid;

use crate::support::{Service, check_names, new_account, report, until, update_account};

/// Lets the next count be at once.
async fn allow_count(admin: &mut PgConnection) {
    sqlx::query("UPDATE name_counts SET next_count_time = now()")
        .execute(admin)
        .await
        .unwrap();
}

#[tokio::test]
async fn new_names_are_counted_within_two_seconds() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    for given in ["Katarzyna", "Robert", "Ingrid", "Mohamed"] {
        for family in ["Nowak", "Johnson", "Haddad"] {
            let request = new_account(&organization, given, family, "");
            service.create_anyway(request).await;
        }
    }
    let last = Instant::now();
    let mut admin = service.admin().await;
    service.until_counted(&organization, 12).await;
    assert!(
        last.elapsed() < Duration::from_secs(3),
        "{:?}",
        last.elapsed()
    );
    let counts: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT as_given_name, as_family_name FROM name_frequencies ORDER BY as_given_name, name_hash",
    )
    .fetch_all(&mut admin)
    .await
    .unwrap();
    assert_eq!(counts, [[(0, 4); 3].as_slice(), &[(3, 0); 4]].concat());
}

#[tokio::test]
async fn names_that_go_and_come_back_are_counted() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let account = service
        .create(new_account(&organization, "Ann", "Lee", ""))
        .await;
    let mut admin = service.admin().await;
    let mut until_counted = async |what: &str, expected: &[(i64, i64)]| {
        until(what, async || {
            let counts: Vec<(i64, i64)> = sqlx::query_as(
                "SELECT as_given_name, as_family_name FROM name_frequencies
                ORDER BY as_given_name, as_family_name",
            )
            .fetch_all(&mut admin)
            .await
            .unwrap();
            counts == expected
        })
        .await;
    };
    until_counted("the names of a new account", &[(0, 1), (1, 0)]).await;
    service.close(&account).await;
    until_counted("no names of a closed account", &[]).await;
    service.reopen(&account).await.unwrap();
    until_counted("the names of a reopened account", &[(0, 1), (1, 0)]).await;
    let new = Account {
        family_name: "Ann".to_owned(),
        ..Default::default()
    };
    let rename = update_account(&account, &["family_name"], new);
    service.update(rename).await;
    until_counted("a name that changed", &[(1, 1)]).await;
}

#[tokio::test]
async fn a_rare_name_says_more_than_a_common_one() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    // All that are found are shown.
    service
        .set_front_desk_duplicates(&organization, 0.05, 0.5)
        .await;
    let given = [
        "Katarzyna",
        "Robert",
        "Ingrid",
        "Mohamed",
        "Xiulan",
        "Priya",
        "Tomas",
        "Olga",
        "Bruno",
        "Zoe",
        "Hugo",
        "Fatima",
        "Ewa",
        "Yuki",
        "Chidi",
    ];
    for given in given {
        let request = new_account(&organization, given, "Johnson", "");
        service.create_anyway(request).await;
    }
    let request = new_account(&organization, "Robert", "Quillfeather", "");
    service.create_anyway(request).await;
    service.until_counted(&organization, 16).await;

    let mut found = Vec::new();
    for family in ["Johnson", "Quillfeather"] {
        let report = service
            .check(check_names(&organization, "Robertt", family))
            .await;
        let best = report.candidates.first().expect("a candidate");
        let FieldEvidence { weight, share, .. } = best.evidence.unwrap().family_name.unwrap();
        found.push((best.score, weight, share.unwrap()));
    }
    let [common, rare] = found[..] else {
        panic!("two names");
    };
    assert!(rare.0 > common.0, "score: {rare:?} and {common:?}");
    assert!(rare.1 > common.1 + 2.0, "weight: {rare:?} and {common:?}");
    assert!(rare.2 < common.2 / 5.0, "share: {rare:?} and {common:?}");
}

/// A stranger who is entered as `Jonh` is probably called John, where many are.
#[tokio::test]
async fn a_misspelled_common_name_is_no_rare_one() {
    let mut service = Service::start().await;
    let others = [
        "Robert", "Ingrid", "Xiulan", "Priya", "Tomas", "Olga", "Bruno", "Zoe", "Hugo", "Fatima",
    ];
    let families = [
        "Haddad", "Quist", "Nowak", "Okafor", "Lund", "Berger", "Ito", "Diaz", "Moreau", "Vega",
    ];
    let mut found = Vec::new();
    for is_common in [true, false] {
        let organization = service.organization().await;
        let request = new_account(&organization, "John", "Smith", "");
        service.create(request).await;
        for (given, family) in others.into_iter().zip(families) {
            let given = if is_common { "John" } else { given };
            let request = new_account(&organization, given, family, "");
            service.create_anyway(request).await;
        }
        service.until_counted(&organization, 11).await;
        let report = service
            .check(check_names(&organization, "Jonh", "Smith"))
            .await;
        let best = report.candidates.first().expect("a candidate");
        let given_name = best.evidence.unwrap().given_name.unwrap();
        found.push((best.score, given_name.weight));
    }
    let [common, rare] = found[..] else {
        panic!("two organizations");
    };
    assert!(rare.0 > common.0, "score: {rare:?} and {common:?}");
    assert!(rare.1 > common.1 + 0.3, "weight: {rare:?} and {common:?}");
}

#[tokio::test]
async fn a_new_count_voids_no_acknowledgement() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    service
        .create(new_account(&organization, "Katarzyna", "Nowak", ""))
        .await;
    let request = new_account(&organization, "Katarzyna", "Novak", "");
    let warning = report(service.accounts.create_account(request.clone()).await);
    sqlx::query(
        "INSERT INTO name_counts (organization_id, accounts, count_time, next_count_time, keys_version)
        VALUES ($1::uuid, 100000, now(), now() + interval '1 day', 1)
        ON CONFLICT (organization_id) DO UPDATE SET accounts = 100000, next_count_time = excluded.next_count_time",
    )
    .bind(&organization)
    .execute(&mut service.admin().await)
    .await
    .unwrap();
    let check = check_names(&organization, "Katarzyna", "Novak");
    let after = service.check(check).await;
    let score = after.candidates.first().map(|candidate| candidate.score);
    assert_ne!(score, Some(warning.candidates[0].score));
    service
        .create(CreateAccountRequest {
            duplicate_acknowledgement: warning.acknowledgement,
            ..request
        })
        .await;
}

#[tokio::test]
async fn two_replicas_do_not_count_the_same_list_at_once() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    service
        .create(new_account(&organization, "Ann", "Lee", ""))
        .await;
    let mut admin = service.admin().await;
    service.until_counted(&organization, 1).await;
    let id = Uuid::parse_str(&organization).unwrap();
    allow_count(&mut admin).await;

    let scope = Scope::Organization(id);
    let mut one = begin(&service.pool, scope).await.unwrap();
    assert_eq!(
        name_frequency::count(&mut one, id).await.unwrap(),
        Count::Done
    );
    let mut other = begin(&service.pool, scope).await.unwrap();
    let count = name_frequency::count(&mut other, id).await.unwrap();
    assert_eq!(count, Count::UnderWay);
    other.rollback().await.unwrap();
    one.commit().await.unwrap();
    let mut again = begin(&service.pool, scope).await.unwrap();
    let count = name_frequency::count(&mut again, id).await.unwrap();
    assert!(matches!(count, Count::NotBefore(_)), "{count:?}");
}

#[tokio::test]
async fn a_count_writes_only_what_changed() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    for (given, family) in [("Robert", "Nowak"), ("Ingrid", "Haddad")] {
        let request = new_account(&organization, given, family, "");
        service.create(request).await;
    }
    let mut admin = service.admin().await;
    service.until_counted(&organization, 2).await;
    let rows = "SELECT name_hash, as_given_name, as_family_name, xmin::text FROM name_frequencies";
    let before: Vec<(i64, i64, i64, String)> =
        sqlx::query_as(rows).fetch_all(&mut admin).await.unwrap();
    // One is new, one is gone, one is had by more, and one stays.
    sqlx::raw_sql(
        "UPDATE accounts SET given_name_hash = 1 WHERE given_name = 'Robert';
        UPDATE accounts SET family_name_hash = (
            SELECT family_name_hash FROM accounts WHERE family_name = 'Nowak'
        ) WHERE family_name = 'Haddad'",
    )
    .execute(&mut admin)
    .await
    .unwrap();
    allow_count(&mut admin).await;
    let id = Uuid::parse_str(&organization).unwrap();
    let mut tx = begin(&service.pool, Scope::Organization(id)).await.unwrap();
    assert_eq!(
        name_frequency::count(&mut tx, id).await.unwrap(),
        Count::Done
    );
    tx.commit().await.unwrap();
    let after: Vec<(i64, i64, i64, String)> =
        sqlx::query_as(rows).fetch_all(&mut admin).await.unwrap();
    assert_eq!(after.len(), 3);
    let unchanged = after.iter().filter(|row| before.contains(row)).count();
    assert_eq!(unchanged, 1, "{before:?} {after:?}");
    assert!(after.iter().any(|row| (row.0, row.1, row.2) == (1, 1, 0)));
    assert!(after.iter().any(|row| (row.1, row.2) == (0, 2)));
}

#[tokio::test]
async fn a_list_that_a_process_left_uncounted_is_found() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    service
        .create(new_account(&organization, "Ann", "Lee", ""))
        .await;
    let database = service.stop().await;
    let mut admin = database.admin().await.unwrap();
    sqlx::raw_sql("DELETE FROM name_counts; DELETE FROM name_frequencies")
        .execute(&mut admin)
        .await
        .unwrap();
    let url = database.service_url();
    let service = Service::start_on(database, &url, &[]).await;
    service.until_counted(&organization, 1).await;
    drop(service);
}
