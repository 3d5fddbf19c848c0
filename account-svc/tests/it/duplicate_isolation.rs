//! The duplicate check of one organization knows nothing of the accounts of another.

use account_svc::{
    db::organization,
    domain::{
        duplicate::{Fingerprint, Identity},
        name::PersonName,
    },
};
use tonic::Code;
use usher_proto::account::v1::{CheckDuplicatesRequest, EmailVerdict};
use usher_runtime::database::{Scope, begin};
use uuid::Uuid;

use crate::support::{BIRTH_DATE, Service, check_names, new_account, within};

#[tokio::test]
async fn accounts_of_another_organization_are_neither_shown_nor_counted() {
    let mut service = Service::start().await;
    let mut admin = service.admin().await;
    let (one, other) = (service.organization().await, service.organization().await);
    service
        .create(new_account(&one, "Katarzyna", "Nowak", ""))
        .await;
    service.until_counted(&one, 1).await;
    let birth_date = Some(BIRTH_DATE);
    let question = CheckDuplicatesRequest {
        email: Some("kasia@example.org".to_owned()),
        birth_date,
        ..check_names(&one, "Katarzyna", "Nowak")
    };
    let before = service.check(question.clone()).await;
    assert_eq!(before.candidates.len(), 1);
    assert_eq!(before.email(), EmailVerdict::Available);

    let mut request = new_account(&other, "Katarzyna", "Nowak", "kasia@example.org");
    request.account.as_mut().unwrap().birth_date = birth_date;
    service.create(request).await;
    for _ in 0..2 {
        let request = new_account(&other, "Katarzyna", "Nowak", "");
        service.create_anyway(request).await;
    }
    service.until_counted(&other, 3).await;
    assert_eq!(service.check(question.clone()).await, before);

    // Each query names the organization besides.
    sqlx::raw_sql(
        "ALTER TABLE accounts DISABLE ROW LEVEL SECURITY;
        ALTER TABLE duplicate_keys DISABLE ROW LEVEL SECURITY;
        ALTER TABLE name_frequencies DISABLE ROW LEVEL SECURITY;
        ALTER TABLE name_counts DISABLE ROW LEVEL SECURITY",
    )
    .execute(&mut admin)
    .await
    .unwrap();
    assert_eq!(service.check(question).await, before);
}

#[tokio::test]
async fn equal_names_of_two_organizations_do_not_wait_for_each_other() {
    let mut service = Service::start().await;
    let (one, other) = (service.organization().await, service.organization().await);
    let identity = Identity {
        name: PersonName {
            given: "Ann".to_owned(),
            family: "Lee".to_owned(),
        },
        email: None,
        birth_date: None,
        phone: None,
    };
    let name = Fingerprint::new(&identity);
    let id = Uuid::parse_str(&one).unwrap();
    let mut tx = begin(&service.pool, Scope::Organization(id)).await.unwrap();
    let locked = organization::get_and_lock_name(&mut tx, id, &name).await;
    assert!(locked.unwrap().is_some());
    within(service.create(new_account(&other, "Ann", "Lee", ""))).await;
    let waits = new_account(&one, "Ann", "Lee", "");
    let refused = within(service.accounts.create_account(waits)).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unavailable);
}
