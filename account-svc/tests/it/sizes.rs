//! Responses stay under the 4 MiB that clients of gRPC accept by themselves, as the clients of these tests do.

use usher_proto::account::v1::{
    Account, Address, BatchGetAccountsRequest, Contact, CreateAccountRequest, ListAccountsRequest,
};

use usher_tests::refusal::Refusal;

use crate::support::{Service, assert_invalid, new_account, update_account};

/// Most bytes of the texts of an account.
const LIMIT: usize = 64 * 1024;

/// An account whose texts have exactly `bytes` bytes.
fn large_account(organization_id: &str, bytes: usize) -> CreateAccountRequest {
    let mut request = new_account(organization_id, "Ann", "Lee", "");
    let account = request.account.as_mut().unwrap();
    let mut left = bytes - "AnnLee".len();
    for key in 0.. {
        let key = format!("{key:02}");
        let value = "x".repeat(left.min(1_002) - key.len());
        left -= key.len() + value.len();
        account.attributes.insert(key, value);
        if left == 0 {
            break;
        }
    }
    request
}

fn description(refused: &Refusal) -> &str {
    &refused.details.bad_request().unwrap().field_violations[0].description
}

#[tokio::test]
async fn the_whole_of_an_account_is_bounded() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let mut too_large = large_account(&organization, 60_000);
    let account = too_large.account.as_mut().unwrap();
    account.contacts = vec![
        Contact {
            name: "n".repeat(200),
            ..Default::default()
        };
        20
    ];
    // Bytes are counted, not characters.
    account.addresses = vec![Address {
        lines: vec!["é".repeat(200); 4],
        country_code: "CA".to_owned(),
        ..Default::default()
    }];
    let result = service.accounts.create_account(too_large.clone()).await;
    let refused = assert_invalid(result, &["account"]);
    let expected = format!("its texts have 65602 bytes together; at most {LIMIT} are accepted");
    assert_eq!(description(&refused), expected);

    // 66 bytes less, and it fits exactly.
    let account = too_large.account.as_mut().unwrap();
    account.contacts[0].name.truncate(200 - 66);
    let account = service.create(too_large).await;

    let new = Account {
        plan: "p".to_owned(),
        ..Default::default()
    };
    let request = update_account(&account, &["plan"], new);
    let result = service.accounts.update_account(request).await;
    let refused = assert_invalid(result, &["account"]);
    assert!(description(&refused).contains("65537"), "{refused:?}");
}

#[tokio::test]
async fn a_response_holds_no_more_than_clients_accept() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    service.create(large_account(&organization, 60_000)).await;
    sqlx::query(
        "INSERT INTO accounts (organization_id, account_id, given_name, family_name, members, addresses,
            contacts, plan, assigned_staff, attributes, locale, given_name_hash, family_name_hash,
            keys_version)
        SELECT organization_id, gen_random_uuid(), given_name, family_name, members, addresses, contacts,
            plan, assigned_staff, attributes, locale, given_name_hash, family_name_hash, keys_version
        FROM accounts, generate_series(1, 119)",
    )
    .execute(&mut service.admin().await)
    .await
    .unwrap();

    let mut request = ListAccountsRequest {
        organization_id: organization.clone(),
        page_size: 500,
        ..Default::default()
    };
    let mut account_ids = Vec::new();
    let mut pages = 0;
    loop {
        let page = service.accounts.list_accounts(request.clone()).await;
        let page = page.unwrap().into_inner();
        account_ids.extend(page.accounts.into_iter().map(|account| account.account_id));
        pages += 1;
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(pages, 3);
    assert_eq!(account_ids.len(), 120);
    assert!(
        account_ids.is_sorted_by(|one, next| one > next),
        "each once"
    );

    let batch = |count: usize| BatchGetAccountsRequest {
        organization_id: organization.clone(),
        account_ids: account_ids[..count].to_vec(),
    };
    let result = service.accounts.batch_get_accounts(batch(60)).await;
    let refused = assert_invalid(result, &["account_ids"]);
    assert!(refused.message.ends_with("ask for fewer"), "{refused:?}");
    let response = service.accounts.batch_get_accounts(batch(40)).await;
    assert_eq!(response.unwrap().into_inner().accounts.len(), 40);
}
