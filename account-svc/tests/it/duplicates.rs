use futures::future::join_all;
use tonic::Code;
use usher_proto::account::v1::{
    Account, AccountState, CheckDuplicatesRequest, CreateAccountRequest, Date, DuplicateReport,
    EmailVerdict, FieldComparison, InvitationKind, InvitePolicy, PlatformMatchPolicy,
    UpdateAccountRequest,
};

use crate::support::{
    BIRTH_DATE, PASSWORD, Service, assert_invalid, assert_refused, check_names, new_account,
    report, update_account,
};

/// Inserts older copies of the only account that there is; their warnings would take as many calls.
pub async fn insert_namesakes(service: &Service, count: i32) {
    sqlx::query(
        "WITH keys AS (SELECT key FROM duplicate_keys),
        copies AS (
            INSERT INTO accounts (organization_id, account_id, given_name, family_name, members, addresses,
                contacts, plan, assigned_staff, attributes, locale, given_name_hash, family_name_hash,
                duplicate_keys, keys_version)
            SELECT organization_id, overlay(gen_random_uuid()::text PLACING '00' FROM 1 FOR 2)::uuid,
                given_name, family_name, members, addresses, contacts, plan, assigned_staff, attributes, locale,
                given_name_hash, family_name_hash, duplicate_keys, keys_version
            FROM accounts, generate_series(1, $1)
            RETURNING organization_id, account_id
        )
        INSERT INTO duplicate_keys (organization_id, key, account_id)
        SELECT organization_id, key, account_id FROM copies, keys",
    )
    .bind(count)
    .execute(&mut service.admin().await)
    .await
    .unwrap();
}

#[tokio::test]
async fn an_email_belongs_to_one_account_of_an_organization() {
    let mut service = Service::start().await;
    let (one, other) = (service.organization().await, service.organization().await);
    let account = service
        .create(new_account(&one, "Ann", "Lee", "ann@bücher.example"))
        .await;

    let again = new_account(&one, "Other", "Person", "ANN@xn--bcher-kva.example");
    let result = service.accounts.create_account(again).await;
    let refused = assert_refused(result, Code::AlreadyExists, "EMAIL_IN_ORGANIZATION", &[]);
    assert_eq!(
        refused.details.resource_info().unwrap().resource_name,
        account.account_id
    );

    // What another organization created and nobody claimed is no match: telling would leak it.
    let elsewhere = service
        .create(new_account(&other, "Ann", "Lee", "ann@bücher.example"))
        .await;
    assert_eq!(elsewhere.state(), AccountState::Invited);
}

#[tokio::test]
async fn of_fifty_creates_of_one_email_one_wins_and_the_others_are_told() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let results = join_all((0..50_u8).map(|index| {
        let mut client = service.accounts.clone();
        // Names without likeness: only the email is in the way.
        let name: String = (1..=6)
            .map(|digit| char::from(b'a' + index.wrapping_mul(digit * 5).wrapping_add(digit) % 26))
            .collect();
        let request = new_account(
            &organization,
            &name,
            &format!("{name}son"),
            "ann@example.org",
        );
        async move { client.create_account(request).await }
    }))
    .await;
    let (accepted, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!((accepted.len(), refused.len()), (1, 49));
    for result in refused {
        assert_refused(result, Code::AlreadyExists, "EMAIL_IN_ORGANIZATION", &[]);
    }
}

#[tokio::test]
async fn similar_names_warn_until_exactly_they_are_acknowledged() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let first = service
        .create(new_account(&organization, "José María", "García-López", ""))
        .await;

    let again = new_account(
        &organization,
        "GARCIA LOPEZ",
        "Jose Maria",
        "jose@example.org",
    );
    let warning = report(service.accounts.create_account(again.clone()).await);
    assert_eq!(warning.email(), EmailVerdict::Available);
    let [candidate] = &warning.candidates[..] else {
        panic!("{warning:?}");
    };
    assert_eq!(candidate.account_id, first.account_id);
    assert_eq!(candidate.given_name(), FieldComparison::Agrees);
    assert_eq!(candidate.email(), FieldComparison::Missing);
    assert!((0.8..=1.0).contains(&candidate.score), "{candidate:?}");
    assert_eq!(candidate.evidence, None, "errors have to be short");

    let acknowledged =
        |request: &CreateAccountRequest, warning: &DuplicateReport| CreateAccountRequest {
            duplicate_acknowledgement: warning.acknowledgement.clone(),
            acknowledgement_reason: "father and son".to_owned(),
            ..request.clone()
        };
    let second = service.create(acknowledged(&again, &warning)).await;

    // A third one has two candidates: what was acknowledged before does not cover them.
    let third = new_account(&organization, "Jose-Maria", "Garcia Lopez", "");
    let result = service
        .accounts
        .create_account(acknowledged(&third, &warning))
        .await;
    let refused = assert_refused(result, Code::FailedPrecondition, "POSSIBLE_DUPLICATE", &[]);
    assert!(
        refused.message.contains("does not cover all accounts"),
        "{}",
        refused.message
    );
    let warning = report(service.accounts.create_account(third.clone()).await);
    assert_eq!(warning.candidates.len(), 2);
    service.create(acknowledged(&third, &warning)).await;

    let ignored: Vec<serde_json::Value> = sqlx::query_scalar(
        "SELECT details FROM audit_events
        WHERE resource_id = $1::uuid AND action = 'duplicate.ignored'",
    )
    .bind(&second.account_id)
    .fetch_all(&mut service.admin().await)
    .await
    .unwrap();
    assert_eq!(ignored.len(), 1);
    assert_eq!(ignored[0]["account_ids"], first.account_id.as_str());
    assert_eq!(ignored[0]["reason"], "father and son");
}

#[tokio::test]
async fn a_check_reports_what_a_create_would_and_changes_nothing() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let mut request = new_account(&organization, "William", "Smith", "will@example.org");
    request.account.as_mut().unwrap().birth_date = Some(BIRTH_DATE);
    let account = service.create(request).await;

    let mut check = CheckDuplicatesRequest {
        organization_id: organization,
        given_name: "Bill".to_owned(),
        family_name: "Smyth".to_owned(),
        email: Some("WILL@example.org".to_owned()),
        birth_date: Some(BIRTH_DATE),
        ..Default::default()
    };
    let report = service.check(check.clone()).await;
    assert_eq!(report.email(), EmailVerdict::InOrganization);
    assert_eq!(report.email_account_id, account.account_id);
    let candidate = &report.candidates[0];
    assert_eq!(candidate.given_name(), FieldComparison::Similar);
    assert_eq!(candidate.birth_date(), FieldComparison::Agrees);
    assert_eq!(candidate.email(), FieldComparison::Agrees);
    assert_eq!(candidate.phone(), FieldComparison::Missing);

    // The same name at another age is somebody else.
    check.birth_date = Some(Date {
        year: 1950,
        month: 1,
        day: 1,
    });
    check.email = None;
    let report = service.check(check).await;
    assert_eq!(report.email(), EmailVerdict::NotGiven);
    assert_eq!(report.candidates, []);
    assert_eq!(report.acknowledgement, "");
}

#[tokio::test]
async fn a_check_for_a_change_leaves_the_account_itself_out() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let account = service
        .create(new_account(&organization, "Ann", "Lee", "ann@example.org"))
        .await;
    let mut check = CheckDuplicatesRequest {
        email: Some("ann@example.org".to_owned()),
        account_id: account.account_id.clone(),
        ..check_names(&organization, "Anne", "Lee")
    };
    let report = service.check(check.clone()).await;
    assert_eq!(report.email(), EmailVerdict::Available);
    assert_eq!(report.candidates, []);

    // It stands in the way of others.
    check.account_id = uuid::Uuid::now_v7().to_string();
    let report = service.check(check.clone()).await;
    assert_eq!(report.email(), EmailVerdict::InOrganization);
    assert_eq!(report.candidates[0].account_id, account.account_id);

    check.account_id = "7".to_owned();
    let result = service.accounts.check_duplicates(check).await;
    assert_invalid(result, &["account_id"]);
}

#[tokio::test]
async fn a_person_elsewhere_is_asked_to_share() {
    let mut service = Service::start().await;
    let (one, other) = (service.organization().await, service.organization().await);
    service.activated(&one).await;

    let request = new_account(&other, "Ann", "Lee", "Ann@example.org");
    let refused = service.accounts.create_account(request.clone()).await;
    assert_eq!(report(refused).email(), EmailVerdict::OnPlatform);
    let result = service.accounts.create_account(request.clone()).await;
    assert_refused(result, Code::FailedPrecondition, "EMAIL_ON_PLATFORM", &[]);

    let account = service
        .create(CreateAccountRequest {
            on_platform_match: PlatformMatchPolicy::RequestShare.into(),
            ..request
        })
        .await;
    assert_eq!(account.state(), AccountState::ShareRequested);
    assert_eq!(
        account.last_invitation.unwrap().kind(),
        InvitationKind::ShareRequest
    );
    let link = service.next_link().await;
    assert_eq!(
        link.event.kind(),
        usher_proto::event::v1::InvitationKind::ShareRequest
    );

    // A consent is not given with a password.
    let result = service.activate(&link.token, PASSWORD).await;
    assert_refused(result, Code::NotFound, "TOKEN_UNKNOWN", &[]);
}

#[tokio::test]
async fn a_changed_name_is_checked_like_a_new_one() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    service
        .create(new_account(&organization, "Ann", "Lee", ""))
        .await;
    let mut request = new_account(&organization, "Bo", "Diaz", "bo@example.org");
    request.invite = InvitePolicy::Hold.into();
    let account = service.create(request).await;
    let rename = |acknowledgement: String| {
        let new = Account {
            given_name: "Anne".to_owned(),
            family_name: "Lee".to_owned(),
            ..Default::default()
        };
        UpdateAccountRequest {
            duplicate_acknowledgement: acknowledgement,
            ..update_account(&account, &["given_name", "family_name"], new)
        }
    };
    let warning = report(service.accounts.update_account(rename(String::new())).await);
    assert_eq!(warning.candidates.len(), 1);
    let renamed = service.update(rename(warning.acknowledgement)).await;
    assert_eq!(renamed.given_name, "Anne");
}

#[tokio::test]
async fn a_name_that_is_written_better_is_not_checked_again() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let mut request = new_account(&organization, "ann", "o'brien", "");
    service.create(request.clone()).await;
    request.invite = InvitePolicy::Hold.into();
    let account = service.create_anyway(request).await;
    let new = Account {
        given_name: "Ann".to_owned(),
        family_name: "O’Brien".to_owned(),
        ..Default::default()
    };
    let request = update_account(&account, &["given_name", "family_name"], new);
    let renamed = service.update(request).await;
    assert_eq!(renamed.family_name, "O’Brien");
}

#[tokio::test]
async fn a_warning_of_many_namesakes_holds_its_report() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let request = new_account(&organization, "Ann", "Lee", "");
    service.create(request.clone()).await;
    // More namesakes than are shown.
    insert_namesakes(&service, 60).await;
    let warning = report(service.accounts.create_account(request.clone()).await);
    assert_eq!(warning.candidates.len(), 40);
    assert!(warning.more_candidates);
    let acknowledged = CreateAccountRequest {
        duplicate_acknowledgement: warning.acknowledgement,
        ..request
    };
    let created = service.create(acknowledged).await;
    let ignored: String = sqlx::query_scalar(
        "SELECT details ->> 'account_ids' FROM audit_events
        WHERE resource_id = $1::uuid AND action = 'duplicate.ignored'",
    )
    .bind(&created.account_id)
    .fetch_one(&mut service.admin().await)
    .await
    .unwrap();
    let shown: Vec<&str> = warning
        .candidates
        .iter()
        .map(|candidate| candidate.account_id.as_str())
        .collect();
    assert_eq!(ignored, shown.join(","));
}

#[tokio::test]
async fn a_warning_stays_the_same_while_nobody_of_the_name_comes_or_goes() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let request = new_account(&organization, "Ann", "Lee", "");
    service.create(request.clone()).await;
    insert_namesakes(&service, 400).await;
    let warning = report(service.accounts.create_account(request.clone()).await);
    // Other changes move the rows to other places in the table.
    sqlx::query("UPDATE accounts SET plan = repeat('x', 60) WHERE account_id = ANY ($1::uuid[])")
        .bind(
            warning
                .candidates
                .iter()
                .map(|candidate| candidate.account_id.clone())
                .collect::<Vec<_>>(),
        )
        .execute(&mut service.admin().await)
        .await
        .unwrap();
    let again = report(service.accounts.create_account(request).await);
    assert_eq!(again.acknowledgement, warning.acknowledgement);
    let ids = |report: &DuplicateReport| -> Vec<String> {
        let candidates = report.candidates.iter();
        candidates.map(|found| found.account_id.clone()).collect()
    };
    assert_eq!(ids(&again), ids(&warning));
}

#[tokio::test]
async fn a_candidate_that_is_gone_voids_no_acknowledgement() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let request = new_account(&organization, "Ann", "Lee", "");
    let first = service.create(request.clone()).await;
    service.create_anyway(request.clone()).await;
    let warning = report(service.accounts.create_account(request.clone()).await);
    assert_eq!(warning.candidates.len(), 2);
    service.close(&first).await;
    service
        .create(CreateAccountRequest {
            duplicate_acknowledgement: warning.acknowledgement,
            ..request
        })
        .await;
}
