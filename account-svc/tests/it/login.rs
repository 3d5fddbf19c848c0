use tonic::Code;
use usher_proto::account::v1::AuthenticateRequest;

use crate::support::{PASSWORD, Service, assert_refused, new_account, refusal};

#[tokio::test]
async fn wrong_passwords_and_unknown_emails_look_the_same() {
    let mut service = Service::start().await;
    let organization = with_client(&mut service).await;

    let wrong = service
        .authenticate(&organization, "ann@example.org", "wrong")
        .await
        .unwrap_err();
    let unknown = service
        .authenticate(&organization, "bob@example.org", "wrong")
        .await
        .unwrap_err();
    assert_eq!(wrong.code(), Code::Unauthenticated);
    assert_eq!(wrong.code(), unknown.code());
    assert_eq!(wrong.message(), unknown.message());
    assert_eq!(wrong.details(), unknown.details());
}

/// An organization with one client who can log in.
async fn with_client(service: &mut Service) -> String {
    let organization = service.organization().await;
    service.activated(&organization).await;
    organization
}

/// The reason of a refused login of the client, or `OK`.
async fn login_from(
    service: &Service,
    organization_id: &str,
    source: &str,
    password: &str,
) -> String {
    let request = AuthenticateRequest {
        organization_id: organization_id.to_owned(),
        email: "ann@example.org".to_owned(),
        password: password.to_owned(),
        source: source.to_owned(),
    };
    match service.activation.clone().authenticate(request).await {
        Ok(_) => "OK".to_owned(),
        Err(status) => refusal::<()>(Err(status)).reason,
    }
}

#[tokio::test]
async fn guessing_is_slowed_for_the_pair_of_email_and_source() {
    let mut service = Service::start().await;
    let organization = with_client(&mut service).await;
    for _ in 0..10 {
        let reason = login_from(&service, &organization, "192.0.2.7", "wrong").await;
        assert_eq!(reason, "CREDENTIALS_INVALID");
    }
    // Even the right password has to wait now.
    let request = AuthenticateRequest {
        organization_id: organization.clone(),
        email: "ANN@example.org".to_owned(),
        password: PASSWORD.to_owned(),
        source: "192.0.2.7".to_owned(),
    };
    let result = service.activation.authenticate(request).await;
    let refused = assert_refused(result, Code::ResourceExhausted, "TOO_MANY_ATTEMPTS", &[]);
    let wait = refused.details.retry_info().unwrap().retry_delay.unwrap();
    assert!((1..=30).contains(&wait.as_secs()), "{wait:?}");
}

#[tokio::test]
async fn guesses_of_somebody_else_do_not_lock_the_client_out() {
    let mut service = Service::start().await;
    let organization = with_client(&mut service).await;
    for _ in 0..12 {
        login_from(&service, &organization, "192.0.2.7", "wrong").await;
    }
    let reason = login_from(&service, &organization, "198.51.100.1", PASSWORD).await;
    assert_eq!(reason, "OK");
}

#[tokio::test]
async fn a_blocked_source_uses_up_no_attempts_of_the_email() {
    let mut service = Service::start().await;
    let organization = with_client(&mut service).await;
    // Far more than the email may be tried by all sources together.
    for _ in 0..150 {
        login_from(&service, &organization, "192.0.2.7", "wrong").await;
    }
    let reason = login_from(&service, &organization, "198.51.100.1", "wrong").await;
    assert_eq!(reason, "CREDENTIALS_INVALID");
}

#[tokio::test]
async fn guesses_from_many_sources_do_not_slow_the_source_of_an_earlier_login() {
    let mut service = Service::start().await;
    let organization = with_client(&mut service).await;
    let home = "198.51.100.1";
    assert_eq!(
        login_from(&service, &organization, home, PASSWORD).await,
        "OK"
    );
    // The budget of the email, as a hundred guesses from as many sources leave it.
    let mut reasons = std::collections::BTreeSet::new();
    for source in 0..110 {
        let source = format!("192.0.2.{source}");
        reasons.insert(login_from(&service, &organization, &source, "wrong").await);
    }
    assert!(reasons.contains("TOO_MANY_ATTEMPTS"), "{reasons:?}");
    let elsewhere = login_from(&service, &organization, "203.0.113.1", PASSWORD).await;
    assert_eq!(elsewhere, "TOO_MANY_ATTEMPTS");
    assert_eq!(
        login_from(&service, &organization, home, PASSWORD).await,
        "OK"
    );
}

#[tokio::test]
async fn no_organization_slows_the_logins_of_another() {
    let mut service = Service::start().await;
    let one = with_client(&mut service).await;
    let other = service.organization().await;
    let home = "198.51.100.1";
    for _ in 0..12 {
        login_from(&service, &one, home, "wrong").await;
    }
    assert_eq!(login_from(&service, &other, home, PASSWORD).await, "OK");
    let mut reasons = std::collections::BTreeSet::new();
    for source in 0..110 {
        let source = format!("192.0.2.{source}");
        reasons.insert(login_from(&service, &one, &source, "wrong").await);
    }
    assert!(reasons.contains("TOO_MANY_ATTEMPTS"), "{reasons:?}");
    let elsewhere = login_from(&service, &other, "203.0.113.1", PASSWORD).await;
    assert_eq!(elsewhere, "OK");
}

#[tokio::test]
async fn right_passwords_use_up_no_attempts() {
    let mut service = Service::start().await;
    let organization = with_client(&mut service).await;
    // More than an email, and more than a source, may be tried with wrong ones.
    for source in 0..110 {
        let source = format!("192.0.2.{source}");
        let reason = login_from(&service, &organization, &source, PASSWORD).await;
        assert_eq!(reason, "OK", "{source}");
    }
    for login in 0..130 {
        let reason = login_from(&service, &organization, "198.51.100.1", PASSWORD).await;
        assert_eq!(reason, "OK", "{login}");
    }
}

#[tokio::test]
async fn a_call_that_one_limit_refuses_counts_for_no_other() {
    let mut service = Service::start().await;
    let organization = with_client(&mut service).await;
    // Guesses from many sources use up the limit of the email.
    for source in 0..100 {
        let source = format!("192.0.2.{source}");
        login_from(&service, &organization, &source, "wrong").await;
    }
    // More calls than a source may make, none of which is let through to a check of the password.
    for _ in 0..140 {
        let reason = login_from(&service, &organization, "198.51.100.1", PASSWORD).await;
        assert_eq!(reason, "TOO_MANY_ATTEMPTS");
    }
    let request = AuthenticateRequest {
        organization_id: organization,
        email: "bob@example.org".to_owned(),
        password: PASSWORD.to_owned(),
        source: "198.51.100.1".to_owned(),
    };
    let result = service.activation.authenticate(request).await;
    assert_refused(result, Code::Unauthenticated, "CREDENTIALS_INVALID", &[]);
}

#[tokio::test]
async fn passwords_beyond_the_queue_are_refused_and_other_calls_go_on() {
    let mut service = Service::start_with(&["--max-concurrent-hashes", "1"]).await;
    let organization = with_client(&mut service).await;
    let other = service.organization().await;
    let logins = (0..120).map(|source| {
        let service = &service;
        let organization = &organization;
        async move {
            let source = format!("192.0.2.{source}");
            login_from(service, organization, &source, PASSWORD).await
        }
    });
    let are_hashing = std::cell::Cell::new(true);
    let reading = async {
        let mut organizations = service.organizations.clone();
        for _ in 0..50 {
            let request = usher_proto::account::v1::GetOrganizationRequest {
                organization_id: organization.clone(),
            };
            organizations.get_organization(request).await.unwrap();
        }
        assert!(are_hashing.get(), "they did not wait for the passwords");
    };
    let logins = async {
        let reasons = futures::future::join_all(logins).await;
        are_hashing.set(false);
        reasons
    };
    let elsewhere = async {
        for _ in 0..5 {
            let reason = login_from(&service, &other, "203.0.113.2", PASSWORD).await;
            assert_eq!(reason, "OK", "another organization's client");
        }
    };
    let (reasons, (), ()) = tokio::join!(logins, reading, elsewhere);
    let count = |reason: &str| reasons.iter().filter(|found| *found == reason).count();
    assert!(count("OVERLOADED") > 0, "{reasons:?}");
    assert!(count("OK") >= 32, "{reasons:?}");
    // Neither those that were right nor those that were not checked used up attempts on the email.
    assert_eq!(
        login_from(&service, &organization, "203.0.113.1", PASSWORD).await,
        "OK"
    );
}

#[tokio::test]
async fn a_login_is_shown_to_its_own_organization_alone() {
    let mut service = Service::start().await;
    let one = with_client(&mut service).await;
    let other = service.organization().await;
    let mut request = new_account(&other, "Ann", "Lee", "ann@example.org");
    request.on_platform_match = usher_proto::account::v1::PlatformMatchPolicy::RequestShare.into();
    service.create(request).await;
    // Sharing is not served yet: the Person takes the other account over as an activation would.
    sqlx::query(
        "UPDATE accounts SET activate_time = now(), person_id = (SELECT person_id FROM persons)
        WHERE organization_id = $1::uuid",
    )
    .bind(&other)
    .execute(&mut service.admin().await)
    .await
    .unwrap();
    let first = service
        .authenticate(&one, "ann@example.org", PASSWORD)
        .await
        .unwrap();
    assert_eq!(first.previous_login_time, None);
    let elsewhere = service
        .authenticate(&other, "ann@example.org", PASSWORD)
        .await
        .unwrap();
    assert_eq!(elsewhere.previous_login_time, None);
    assert_eq!(elsewhere.person_id, first.person_id);
    assert_ne!(elsewhere.account_id, first.account_id);
    let again = service
        .authenticate(&one, "ann@example.org", PASSWORD)
        .await
        .unwrap();
    assert!(again.previous_login_time.is_some());
}

#[tokio::test]
async fn guessing_is_slowed_for_a_source() {
    let mut service = Service::start_with(&["--max-concurrent-hashes", "2"]).await;
    let organization = service.organization().await;
    let mut refused = None;
    for index in 0..400 {
        let result = service
            .activation
            .authenticate(AuthenticateRequest {
                organization_id: organization.clone(),
                email: format!("client{index}@example.org"),
                password: "wrong".to_owned(),
                source: "192.0.2.7".to_owned(),
            })
            .await;
        let reason = refusal(result).reason;
        if reason == "TOO_MANY_ATTEMPTS" {
            refused = Some(index);
            break;
        }
    }
    assert!(
        refused.is_some_and(|attempts| attempts >= 100),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_login_resets_the_count_of_failures() {
    let mut service = Service::start().await;
    let organization = with_client(&mut service).await;
    for _ in 0..3 {
        for _ in 0..6 {
            let result = service
                .authenticate(&organization, "ann@example.org", "wrong")
                .await;
            assert_refused(result, Code::Unauthenticated, "CREDENTIALS_INVALID", &[]);
        }
        service
            .authenticate(&organization, "ann@example.org", PASSWORD)
            .await
            .unwrap();
    }
}
