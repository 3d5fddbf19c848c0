use prost_types::Duration;
use tonic::Code;
use usher_proto::account::v1::{
    Brand, CreateOrganizationRequest, GetOrganizationRequest, ListOrganizationsRequest,
    Organization, OrganizationSettings, Reminder, reminder::Moment,
};
use uuid::Uuid;

use crate::support::{Service, assert_invalid, assert_refused, update_organization};

fn acme() -> Organization {
    Organization {
        slug: "acme".to_owned(),
        display_name: "Acme".to_owned(),
        portal_url: "https://portal.acme.example/".to_owned(),
        ..Default::default()
    }
}

#[tokio::test]
async fn an_organization_gets_defaults_and_can_be_changed_in_parts() {
    let mut service = Service::start().await;
    let created = service
        .organizations
        .create_organization(CreateOrganizationRequest {
            organization: Some(acme()),
            ..Default::default()
        })
        .await
        .unwrap()
        .into_inner()
        .organization
        .unwrap();
    assert_eq!(created.portal_url, "https://portal.acme.example");
    assert_eq!(created.default_locale, "en");
    let settings = created.settings.clone().unwrap();
    assert_eq!(settings.minimum_age, Some(18));
    assert_eq!(settings.invitation_lifetime.unwrap().seconds, 30 * 86_400);

    let new = Organization {
        etag: created.etag.clone(),
        display_name: "Acme & Söhne".to_owned(),
        brand: Some(Brand {
            color: "#AA0011".to_owned(),
            ..Default::default()
        }),
        settings: Some(OrganizationSettings {
            minimum_age: Some(21),
            ..Default::default()
        }),
        ..Default::default()
    };
    let paths = ["display_name", "brand", "settings.minimum_age"];
    let request = update_organization(&created.organization_id, &paths, new);
    let updated = service.update_organization(request.clone()).await;
    assert_eq!(updated.display_name, "Acme & Söhne");
    assert_eq!(updated.brand.unwrap().color, "#aa0011");
    assert_eq!(updated.portal_url, created.portal_url);
    let settings = updated.settings.unwrap();
    assert_eq!(settings.minimum_age, Some(21));
    assert_eq!(settings.invitation_lifetime.unwrap().seconds, 30 * 86_400);

    // The etag that was read is not current any more.
    let result = service
        .organizations
        .update_organization(request.clone())
        .await;
    assert_refused(result, Code::Aborted, "ETAG_MISMATCH", &[]);

    let mut malformed = request;
    malformed.organization.as_mut().unwrap().etag = "today's".to_owned();
    malformed.update_mask.as_mut().unwrap().paths = vec!["slug".to_owned()];
    let result = service.organizations.update_organization(malformed).await;
    let refused = assert_invalid(result, &["organization.etag", "update_mask"]);
    let violations = &refused.details.bad_request().unwrap().field_violations;
    assert!(violations[0].description.contains("quotes included"));
    assert!(
        violations[1]
            .description
            .starts_with("`slug` cannot be changed")
    );
    assert!(
        violations[1]
            .description
            .ends_with(", settings.import_duplicates")
    );
}

#[tokio::test]
async fn a_slug_belongs_to_one_organization() {
    let mut service = Service::start().await;
    let request = CreateOrganizationRequest {
        organization: Some(acme()),
        ..Default::default()
    };
    service
        .organizations
        .create_organization(request.clone())
        .await
        .unwrap();
    let result = service.organizations.create_organization(request).await;
    assert_refused(
        result,
        Code::AlreadyExists,
        "SLUG_TAKEN",
        &["organization.slug"],
    );
}

#[tokio::test]
async fn faulty_fields_are_named_all_at_once() {
    let mut service = Service::start().await;
    let result = service
        .organizations
        .create_organization(CreateOrganizationRequest {
            organization: Some(Organization {
                slug: "Acme!".to_owned(),
                portal_url: "http://portal.acme.example".to_owned(),
                default_locale: "de".to_owned(),
                reply_to: "nobody".to_owned(),
                allowed_return_origins: vec!["https://a.example/path".to_owned()],
                brand: Some(Brand {
                    color: "red".to_owned(),
                    logo_url: "ftp://a.example".to_owned(),
                }),
                settings: Some(OrganizationSettings {
                    minimum_age: Some(500),
                    invitation_lifetime: Some(Duration {
                        seconds: 1,
                        nanos: 0,
                    }),
                    reminders: [366 * 86_400, i64::MAX]
                        .into_iter()
                        .flat_map(|seconds| {
                            let duration = Duration { seconds, nanos: 0 };
                            [Moment::AfterSent(duration), Moment::BeforeExpiry(duration)]
                        })
                        .map(|moment| Reminder {
                            moment: Some(moment),
                        })
                        .collect(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            request_id: "not a uuid".to_owned(),
        })
        .await;
    assert_invalid(
        result,
        &[
            "organization.allowed_return_origins[0]",
            "organization.brand.color",
            "organization.brand.logo_url",
            "organization.default_locale",
            "organization.display_name",
            "organization.portal_url",
            "organization.reply_to",
            "organization.settings.invitation_lifetime",
            "organization.settings.minimum_age",
            "organization.settings.reminders[0]",
            "organization.settings.reminders[1]",
            "organization.settings.reminders[2]",
            "organization.settings.reminders[3]",
            "organization.slug",
            "request_id",
        ],
    );
}

#[tokio::test]
async fn portals_that_the_operator_does_not_trust_are_refused() {
    let mut service = Service::start().await;
    let result = service
        .organizations
        .create_organization(CreateOrganizationRequest {
            organization: Some(Organization {
                slug: "acme".to_owned(),
                display_name: "Acme https://evil.example".to_owned(),
                portal_url: "https://portal.acme.example.evil.example".to_owned(),
                sender_name: "support@bank.example".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        })
        .await;
    assert_invalid(
        result,
        &[
            "organization.display_name",
            "organization.portal_url",
            "organization.sender_name",
        ],
    );
}

#[tokio::test]
async fn organizations_are_listed_in_pages() {
    let mut service = Service::start().await;
    let mut created = Vec::new();
    for _ in 0..5 {
        created.push(service.organization().await);
    }
    let mut listed = Vec::new();
    let mut page_token = String::new();
    loop {
        let response = service
            .organizations
            .list_organizations(ListOrganizationsRequest {
                page_size: 2,
                page_token,
            })
            .await
            .unwrap()
            .into_inner();
        listed.extend(
            response
                .organizations
                .into_iter()
                .map(|row| row.organization_id),
        );
        page_token = response.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(listed, created);
}

#[tokio::test]
async fn time_zones_have_the_names_of_the_iana_database() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let set = |time_zone: &str| {
        let new = Organization {
            settings: Some(OrganizationSettings {
                time_zone: Some(time_zone.to_owned()),
                ..Default::default()
            }),
            ..Default::default()
        };
        update_organization(&organization, &["settings.time_zone"], new)
    };
    for name in ["Europe/Berlin", "Europe/Berlin", "Etc/GMT+5"] {
        let updated = service.update_organization(set(name)).await;
        assert_eq!(updated.settings.unwrap().time_zone(), name);
    }
    // What PostgreSQL takes besides: another case, an abbreviation, and rules as of POSIX.
    for other in [
        "europe/berlin",
        "CEST",
        "UTC+3",
        "Mars/Olympus1",
        "Mars/Olympus",
    ] {
        let result = service.organizations.update_organization(set(other)).await;
        assert_invalid(result, &["organization.settings.time_zone"]);
    }
}

#[tokio::test]
async fn a_slug_in_place_of_an_id_is_told_apart() {
    let mut service = Service::start().await;
    let request = GetOrganizationRequest {
        organization_id: "acme".to_owned(),
    };
    let result = service.organizations.get_organization(request).await;
    let refused = assert_invalid(result, &["organization_id"]);
    let violations = &refused.details.bad_request().unwrap().field_violations;
    assert!(violations[0].description.ends_with("not the slug"));
}

#[tokio::test]
async fn an_unknown_organization_is_not_found() {
    let mut service = Service::start().await;
    let result = service
        .organizations
        .get_organization(GetOrganizationRequest {
            organization_id: Uuid::now_v7().to_string(),
        })
        .await;
    assert_refused(result, Code::NotFound, "ORGANIZATION_NOT_FOUND", &[]);
}
