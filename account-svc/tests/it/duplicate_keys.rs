//! Accounts are found by what they are now.

use account_svc::domain::{
    duplicate::{Fingerprint, Identity, KEYS_VERSION},
    name::PersonName,
};
use time::macros::date;
use usher_proto::account::v1::{Account, CheckDuplicatesRequest};

use crate::{
    duplicates::insert_namesakes,
    support::{BIRTH_DATE, Service, check_names, new_account, until, update_account},
};

impl Service {
    async fn is_keyed_as(&self, account: &Account, identity: Option<&Identity>) {
        let expected = identity.map(|identity| Fingerprint::new(identity).blocking_keys);
        let expected = expected.unwrap_or_default();
        // The rows, and what the account knows of them.
        for stored in [
            "SELECT key FROM duplicate_keys WHERE account_id = $1::uuid ORDER BY key",
            "SELECT unnest(duplicate_keys) AS key FROM accounts WHERE account_id = $1::uuid ORDER BY key",
        ] {
            let keys: Vec<i64> = sqlx::query_scalar(stored)
                .bind(&account.account_id)
                .fetch_all(&mut self.admin().await)
                .await
                .unwrap();
            assert_eq!(keys, expected, "{identity:?} by {stored}");
        }
    }

    async fn finds(&mut self, account: &Account, given: &str, family: &str) -> bool {
        let check = check_names(&account.organization_id, given, family);
        let report = self.check(check).await;
        let mut candidates = report.candidates.iter();
        candidates.any(|candidate| candidate.account_id == account.account_id)
    }
}

/// What is known of somebody is a name.
fn named(given: &str, family: &str) -> Identity {
    Identity {
        name: PersonName {
            given: given.to_owned(),
            family: family.to_owned(),
        },
        email: None,
        birth_date: None,
        phone: None,
    }
}

#[tokio::test]
async fn a_change_of_what_accounts_are_found_by_is_found() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let account = service
        .create(new_account(&organization, "Bo", "Diaz", ""))
        .await;
    let mut identity = named("Bo", "Diaz");
    service.is_keyed_as(&account, Some(&identity)).await;

    let new = Account {
        given_name: "Katarzyna".to_owned(),
        family_name: "Lewandowska".to_owned(),
        ..Default::default()
    };
    let paths = ["given_name", "family_name"];
    service.update(update_account(&account, &paths, new)).await;
    identity = named("Katarzyna", "Lewandowska");
    service.is_keyed_as(&account, Some(&identity)).await;
    assert!(service.finds(&account, "Katarzyna", "Lewandowska").await);
    assert!(!service.finds(&account, "Bo", "Diaz").await);

    let new = Account {
        birth_date: Some(BIRTH_DATE),
        phone: Some("+15145550199".to_owned()),
        email: Some("kasia@example.org".to_owned()),
        ..Default::default()
    };
    let paths = ["birth_date", "phone", "email"];
    service.update(update_account(&account, &paths, new)).await;
    identity.birth_date = Some(date!(1980 - 05 - 17));
    identity.phone = Some("+15145550199".to_owned());
    identity.email = Some("kasia@example.org".to_owned());
    service.is_keyed_as(&account, Some(&identity)).await;
    // By the phone alone: she married, and goes by her second name.
    let check = CheckDuplicatesRequest {
        phone: identity.phone.clone(),
        birth_date: Some(BIRTH_DATE),
        ..check_names(&organization, "Marta", "Nowak")
    };
    let report = service.check(check).await;
    assert_eq!(report.candidates.len(), 1, "{report:?}");

    let paths = ["birth_date", "phone", "email"];
    service
        .update(update_account(&account, &paths, Account::default()))
        .await;
    identity.birth_date = None;
    identity.phone = None;
    identity.email = None;
    service.is_keyed_as(&account, Some(&identity)).await;
}

#[tokio::test]
async fn closed_accounts_are_no_duplicates_until_they_are_opened_again() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let account = service
        .create(new_account(&organization, "Ann", "Lee", ""))
        .await;
    assert!(service.finds(&account, "Ann", "Lee").await);

    service.close(&account).await;
    assert!(!service.finds(&account, "Ann", "Lee").await);
    service.is_keyed_as(&account, None).await;
    let new = Account {
        given_name: "Katarzyna".to_owned(),
        ..Default::default()
    };
    service
        .update(update_account(&account, &["given_name"], new))
        .await;
    service.is_keyed_as(&account, None).await;

    service.reopen(&account).await.unwrap();
    assert!(service.finds(&account, "Katarzyna", "Lee").await);
    assert!(!service.finds(&account, "Ann", "Leigh").await);
}

/// As after an upgrade to a release that folds names in another way.
#[tokio::test]
async fn keys_of_an_earlier_release_are_derived_anew() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let ann = service
        .create(new_account(&organization, "Ann", "Lee", ""))
        .await;
    // Several batches.
    insert_namesakes(&service, 2_100).await;
    let bo = service
        .create(new_account(&organization, "Bo", "Diaz", ""))
        .await;
    service.close(&bo).await;
    service.until_counted(&organization, 2_101).await;
    let database = service.stop().await;
    sqlx::raw_sql(
        "UPDATE accounts SET keys_version = 0, given_name_hash = 7;
        UPDATE name_frequencies SET name_hash = 7 WHERE as_given_name > 0;
        UPDATE name_counts SET keys_version = 0, next_count_time = now();
        UPDATE duplicate_keys SET key = key + 1;
        INSERT INTO duplicate_keys SELECT organization_id, 5, account_id FROM accounts;
        UPDATE accounts SET duplicate_keys = ARRAY(
            SELECT key FROM duplicate_keys k WHERE k.account_id = accounts.account_id)",
    )
    .execute(&mut database.admin().await.unwrap())
    .await
    .unwrap();

    let url = database.service_url();
    let mut service = Service::start_on(database, &url, &[]).await;
    let mut admin = service.admin().await;
    until("renewed", async || {
        let version: i16 = sqlx::query_scalar("SELECT min(keys_version) FROM name_counts")
            .fetch_one(&mut admin)
            .await
            .unwrap();
        version == KEYS_VERSION
    })
    .await;
    let identity = named("Ann", "Lee");
    service.is_keyed_as(&ann, Some(&identity)).await;
    service.is_keyed_as(&bo, None).await;
    let left: (i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM accounts WHERE keys_version = 0 OR given_name_hash = 7),
            (SELECT count(*) FROM name_frequencies WHERE name_hash = 7)",
    )
    .fetch_one(&mut admin)
    .await
    .unwrap();
    assert_eq!(left, (0, 0));
    assert!(service.finds(&ann, "Ann", "Lee").await);
}

#[tokio::test]
async fn keys_of_an_earlier_release_go_with_a_change_and_when_the_account_is_closed() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let account = service
        .create(new_account(&organization, "Ann", "Lee", ""))
        .await;
    let other_keys = "UPDATE duplicate_keys SET key = key + 1;
        UPDATE accounts SET duplicate_keys = ARRAY(SELECT key FROM duplicate_keys)";
    let mut admin = service.admin().await;
    sqlx::raw_sql(other_keys).execute(&mut admin).await.unwrap();
    let new = Account {
        family_name: "Leigh".to_owned(),
        ..Default::default()
    };
    service
        .update(update_account(&account, &["family_name"], new))
        .await;
    let identity = Identity {
        name: PersonName {
            given: "Ann".to_owned(),
            family: "Leigh".to_owned(),
        },
        email: None,
        birth_date: None,
        phone: None,
    };
    service.is_keyed_as(&account, Some(&identity)).await;

    sqlx::raw_sql(other_keys).execute(&mut admin).await.unwrap();
    service.close(&account).await;
    service.is_keyed_as(&account, None).await;
    service.reopen(&account).await.unwrap();
    service.is_keyed_as(&account, Some(&identity)).await;
}

/// While replicas are upgraded one after the other, an account may have newer keys than this one derives.
#[tokio::test]
async fn a_change_by_an_earlier_release_is_to_be_renewed_by_a_later_one() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let account = service
        .create(new_account(&organization, "Ann", "Lee", ""))
        .await;
    let mut admin = service.admin().await;
    let mut version = async |statement: &'static str| -> i16 {
        sqlx::raw_sql(statement).execute(&mut admin).await.unwrap();
        sqlx::query_scalar("SELECT keys_version FROM accounts")
            .fetch_one(&mut admin)
            .await
            .unwrap()
    };
    let newer = "UPDATE accounts SET keys_version = 9";
    assert_eq!(version(newer).await, 9);
    let new = Account {
        family_name: "Leigh".to_owned(),
        ..Default::default()
    };
    service
        .update(update_account(&account, &["family_name"], new))
        .await;
    assert_eq!(version("SELECT").await, KEYS_VERSION);
    assert_eq!(version(newer).await, 9);
    service.close(&account).await;
    service.reopen(&account).await.unwrap();
    assert_eq!(version("SELECT").await, KEYS_VERSION);
}
