//! What an organization decides about duplicates.

use account_svc::domain::duplicate::DuplicateRules as Bounds;
use usher_proto::account::v1::{
    Account, CheckDuplicatesRequest, CreateOrganizationRequest, DuplicateRules, EntryMode,
    Organization, OrganizationSettings,
};

use crate::support::{
    Service, assert_invalid, check_names, new_account, report, update_account, update_organization,
};

const fn rules(threshold: f64, expected_share: f64) -> DuplicateRules {
    DuplicateRules {
        threshold: Some(threshold),
        expected_share: Some(expected_share),
    }
}

fn settings(front_desk: DuplicateRules, import: DuplicateRules) -> Organization {
    Organization {
        settings: Some(OrganizationSettings {
            front_desk_duplicates: Some(front_desk),
            import_duplicates: Some(import),
            ..Default::default()
        }),
        ..Default::default()
    }
}

const PATHS: [&str; 2] = [
    "settings.front_desk_duplicates",
    "settings.import_duplicates",
];

#[tokio::test]
async fn an_organization_sets_when_duplicates_are_shown() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let (strict, broad) = (rules(0.95, 0.001), rules(0.05, 0.9));
    let request = update_organization(&organization, &PATHS, settings(strict, broad));
    let updated = service.update_organization(request).await.settings.unwrap();
    assert_eq!(updated.front_desk_duplicates, Some(strict));
    assert_eq!(updated.import_duplicates, Some(broad));

    // What is not given has its default again.
    let partly = DuplicateRules {
        threshold: Some(0.9),
        expected_share: None,
    };
    let new = settings(partly, DuplicateRules::default());
    let request = update_organization(&organization, &PATHS, new);
    let updated = service.update_organization(request).await.settings.unwrap();
    let created = service.organization().await;
    let request = update_organization(&created, &["settings.reminders"], Organization::default());
    let defaults = service.update_organization(request).await.settings.unwrap();
    let front_desk = updated.front_desk_duplicates.unwrap();
    assert_eq!(front_desk.threshold, Some(0.9));
    let default = defaults.front_desk_duplicates.unwrap();
    assert_eq!(front_desk.expected_share, default.expected_share);
    assert_eq!(updated.import_duplicates, defaults.import_duplicates);
}

#[tokio::test]
async fn settings_out_of_bounds_are_named() {
    let mut service = Service::start().await;
    let below_and_above = settings(rules(0.049, 0.91), rules(0.951, 0.000_9));
    let no_numbers = settings(
        rules(f64::NAN, f64::INFINITY),
        rules(f64::NEG_INFINITY, -0.5),
    );
    for faulty in [below_and_above, no_numbers] {
        let organization = Organization {
            slug: "acme".to_owned(),
            display_name: "Acme".to_owned(),
            portal_url: "https://portal.acme.example".to_owned(),
            ..faulty
        };
        let request = CreateOrganizationRequest {
            organization: Some(organization),
            ..Default::default()
        };
        let result = service.organizations.create_organization(request).await;
        assert_invalid(
            result,
            &[
                "organization.settings.front_desk_duplicates.expected_share",
                "organization.settings.front_desk_duplicates.threshold",
                "organization.settings.import_duplicates.expected_share",
                "organization.settings.import_duplicates.threshold",
            ],
        );
    }
}

/// Its checks have the bounds that the service has.
#[tokio::test]
async fn the_database_takes_no_settings_out_of_bounds() {
    let mut service = Service::start().await;
    service.organization().await;
    let mut admin = service.admin().await;
    let mut set = async |column: &str, value: &str| {
        let change = format!("UPDATE organizations SET {column} = {value}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(change))
            .execute(&mut admin)
            .await
    };
    for (setting, bounds) in [
        ("threshold", Bounds::THRESHOLDS),
        ("expected_share", Bounds::EXPECTED_SHARES),
    ] {
        let (least, most) = (*bounds.start(), *bounds.end());
        for entry_mode in ["front_desk", "import"] {
            let column = format!("{entry_mode}_{setting}");
            for value in [least, most] {
                set(&column, &value.to_string()).await.unwrap();
            }
            let (below, above) = (least - 1e-6, most + 1e-6);
            for value in [&below.to_string(), &above.to_string(), "'NaN'"] {
                let refused = set(&column, value).await.expect_err(value);
                let code = refused
                    .as_database_error()
                    .and_then(sqlx::error::DatabaseError::code);
                assert_eq!(
                    code.as_deref(),
                    Some("23514"),
                    "{column} {value}: {refused}"
                );
            }
        }
    }
}

#[tokio::test]
async fn an_import_shows_more_than_the_front_desk() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let new = settings(rules(0.95, 0.001), rules(0.05, 0.9));
    let request = update_organization(&organization, &PATHS, new);
    service.update_organization(request).await;
    service
        .create(new_account(&organization, "Katarzyna", "Nowak", ""))
        .await;

    let mut shown = Vec::new();
    for entry_mode in [
        EntryMode::Unspecified,
        EntryMode::FrontDesk,
        EntryMode::Import,
    ] {
        let check = CheckDuplicatesRequest {
            entry_mode: entry_mode.into(),
            ..check_names(&organization, "Katarzina", "Novak")
        };
        shown.push(service.check(check).await.candidates.len());
    }
    assert_eq!(shown, [0, 0, 1]);

    // Creates and changes follow the same rules.
    let mut request = new_account(&organization, "Katarzina", "Novak", "");
    request.entry_mode = EntryMode::Import.into();
    let warning = report(service.accounts.create_account(request.clone()).await);
    assert_eq!(warning.candidates.len(), 1);
    let account = service
        .create(new_account(&organization, "Robert", "Johnson", ""))
        .await;
    let new = Account {
        given_name: "Katarzina".to_owned(),
        family_name: "Novak".to_owned(),
        ..Default::default()
    };
    let mut rename = update_account(&account, &["given_name", "family_name"], new);
    rename.entry_mode = EntryMode::Import.into();
    let warning = report(service.accounts.update_account(rename.clone()).await);
    assert_eq!(warning.candidates.len(), 1);
    rename.entry_mode = EntryMode::FrontDesk.into();
    service.update(rename).await;
}

#[tokio::test]
async fn an_unknown_entry_mode_is_refused() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let check = CheckDuplicatesRequest {
        entry_mode: 9,
        ..check_names(&organization, "Ann", "Lee")
    };
    let result = service.accounts.check_duplicates(check).await;
    assert_invalid(result, &["entry_mode"]);
    let mut request = new_account(&organization, "Ann", "Lee", "");
    request.entry_mode = -1;
    let result = service.accounts.create_account(request).await;
    assert_invalid(result, &["entry_mode"]);
}
