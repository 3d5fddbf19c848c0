//! Which accounts are compared with a new entry when many could be.

use usher_proto::account::v1::{Account, CheckDuplicatesRequest};

use crate::{
    duplicates::insert_namesakes,
    support::{BIRTH_DATE, Service, check_names, new_account, report},
};

#[tokio::test]
async fn the_newest_of_very_many_namesakes_is_shown() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let request = new_account(&organization, "Ann", "Lee", "");
    service.create(request.clone()).await;
    // More older ones than are read.
    insert_namesakes(&service, 80).await;
    let before = report(service.accounts.create_account(request.clone()).await);
    let newest = service.create_anyway(request).await;
    let check = check_names(&organization, "Ann", "Lee");
    let shown = service.check(check).await;
    assert_eq!(shown.candidates[0].account_id, newest.account_id);
    assert_ne!(shown.acknowledgement, before.acknowledgement);
}

#[tokio::test]
async fn namesakes_leave_room_for_others() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    // A name with several spellings, so that its keys alone have more accounts than are enough.
    service
        .create(new_account(&organization, "Jürgen", "Müller", ""))
        .await;
    insert_namesakes(&service, 80).await;
    let mut request = new_account(&organization, "Jurgen", "Mullar", "");
    let account = request.account.as_mut().unwrap();
    account.birth_date = Some(BIRTH_DATE);
    account.phone = Some("+15145550199".to_owned());
    let misspelt = service.create_anyway(request).await;
    let check = CheckDuplicatesRequest {
        birth_date: Some(BIRTH_DATE),
        phone: Some("+15145550199".to_owned()),
        ..check_names(&organization, "Jürgen", "Müller")
    };
    let found = service.check(check).await.candidates;
    assert_eq!(found[0].account_id, misspelt.account_id);
    assert!(found.len() > 1, "namesakes too");
}

/// Their keys are deleted with them; this is what is found of one that has keys all the same.
#[tokio::test]
async fn a_closed_account_is_not_found_even_by_keys_that_were_left() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let account = service
        .create(new_account(&organization, "Ann", "Lee", ""))
        .await;
    let mut admin = service.admin().await;
    sqlx::raw_sql("CREATE TABLE left_behind AS SELECT * FROM duplicate_keys")
        .execute(&mut admin)
        .await
        .unwrap();
    service.close(&account).await;
    sqlx::raw_sql("INSERT INTO duplicate_keys SELECT * FROM left_behind")
        .execute(&mut admin)
        .await
        .unwrap();
    let check = check_names(&organization, "Ann", "Lee");
    assert_eq!(service.check(check).await.candidates, []);
}

#[tokio::test]
async fn copies_of_one_client_are_shown_together() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    // A probability that none of two equally good candidates can have.
    service
        .set_front_desk_duplicates(&organization, 0.9, 0.5)
        .await;
    let mut request = new_account(&organization, "Katarzyna", "Lewandowska", "");
    request.account.as_mut().unwrap().birth_date = Some(BIRTH_DATE);
    let mut copies: Vec<Account> = Vec::new();
    for _ in 0..3 {
        copies.push(service.create_anyway(request.clone()).await);
    }
    let check = CheckDuplicatesRequest {
        birth_date: Some(BIRTH_DATE),
        ..check_names(&organization, "Katarzina", "Lewandowska")
    };
    let found = service.check(check).await.candidates;
    let found: Vec<_> = found.iter().map(|found| &found.account_id).collect();
    let newest_first: Vec<_> = copies.iter().rev().map(|copy| &copy.account_id).collect();
    assert_eq!(found, newest_first);
}
