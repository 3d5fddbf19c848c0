//! Equal names that are written at the same moment.

use futures::future::join_all;
use tonic::Code;
use usher_proto::account::v1::{Account, UpdateAccountRequest};

use crate::support::{Service, assert_refused, new_account, report, update_account};

/// Ways to write one name.
const SPELLINGS: [(&str, &str); 4] = [
    ("Jürgen", "Müller"),
    ("MU\u{308}LLER", "jürgen"),
    ("Juergen", "Mueller"),
    ("Jür-gen", "Mu\u{308}ller"),
];

#[tokio::test]
async fn of_many_equal_creates_one_wins_and_the_others_are_warned_of_it() {
    let mut service = Service::start().await;
    for callers in [8, 64] {
        let organization = service.organization().await;
        let results = join_all((0..callers).map(|index| {
            let (given, family) = SPELLINGS[index % SPELLINGS.len()];
            let request = new_account(&organization, given, family, "");
            let mut client = service.accounts.clone();
            async move { client.create_account(request).await }
        }))
        .await;
        let (created, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        assert_eq!(created.len(), 1, "of {callers}");
        let created = created[0].as_ref().unwrap().get_ref();
        let account_id = &created.account.as_ref().unwrap().account_id;
        for result in refused {
            let refused = result.as_ref().unwrap_err().code();
            assert_eq!(refused, Code::FailedPrecondition, "{result:?}");
            let [candidate] = &report(result).candidates[..] else {
                panic!("one candidate");
            };
            assert_eq!(&candidate.account_id, account_id);
        }
    }
}

#[tokio::test]
async fn of_many_accounts_that_are_renamed_alike_one_is() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let names = [
        ("Ada", "Byron"),
        ("Grace", "Hopper"),
        ("Edsger", "Dijkstra"),
        ("Barbara", "Liskov"),
        ("Leslie", "Lamport"),
        ("Tony", "Hoare"),
        ("Frances", "Allen"),
        ("Niklaus", "Wirth"),
    ];
    let mut requests: Vec<UpdateAccountRequest> = Vec::new();
    for (index, (given, family)) in names.into_iter().enumerate() {
        let account = service
            .create(new_account(&organization, given, family, ""))
            .await;
        let (given, family) = SPELLINGS[index % SPELLINGS.len()];
        let new = Account {
            given_name: given.to_owned(),
            family_name: family.to_owned(),
            ..Default::default()
        };
        requests.push(update_account(
            &account,
            &["given_name", "family_name"],
            new,
        ));
    }
    let results = join_all(requests.into_iter().map(|request| {
        let mut client = service.accounts.clone();
        async move { client.update_account(request).await }
    }))
    .await;
    let (renamed, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(renamed.len(), 1);
    for result in refused {
        assert_refused(result, Code::FailedPrecondition, "POSSIBLE_DUPLICATE", &[]);
    }
}

#[tokio::test]
async fn names_and_emails_that_cross_do_not_wait_for_each_other_for_ever() {
    let mut service = Service::start().await;
    for _ in 0..10 {
        let organization = service.organization().await;
        let results = join_all((0..32).map(|index| {
            // Two names and two emails in all four combinations.
            let (given, family) = [("Ada", "Byron"), ("Edsger", "Dijkstra")][index % 2];
            let email = ["one@example.org", "other@example.org"][index / 2 % 2];
            let request = new_account(&organization, given, family, email);
            let mut client = service.accounts.clone();
            async move { client.create_account(request).await }
        }))
        .await;
        let created = results.iter().filter(|result| result.is_ok()).count();
        assert!((1..=2).contains(&created), "{created}");
        for status in results.iter().filter_map(|result| result.as_ref().err()) {
            let is_told = matches!(
                status.code(),
                Code::FailedPrecondition | Code::AlreadyExists
            );
            assert!(is_told, "{status:?}");
        }
    }
}
