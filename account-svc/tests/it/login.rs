use tonic::Code;
use usher_proto::account::v1::AuthenticateRequest;

use crate::support::{PASSWORD, Service, new_account, refusal};

#[tokio::test]
async fn wrong_passwords_and_unknown_emails_look_the_same() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    service
        .create(new_account(&organization, "Ann", "Lee", "ann@example.org"))
        .await;
    let letter = service.next_letter().await;
    service.activate(&letter.token, PASSWORD).await.unwrap();

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

#[tokio::test]
async fn guessing_is_slowed_for_the_email_and_not_for_others() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    service
        .create(new_account(&organization, "Ann", "Lee", "ann@example.org"))
        .await;
    let letter = service.next_letter().await;
    service.activate(&letter.token, PASSWORD).await.unwrap();

    for _ in 0..10 {
        let refused = refusal(
            service
                .authenticate(&organization, "ann@example.org", "wrong")
                .await,
        );
        assert_eq!(refused.reason, "CREDENTIALS_INVALID");
    }
    // Even the right password has to wait now.
    let refused = refusal(
        service
            .authenticate(&organization, "ann@example.org", PASSWORD)
            .await,
    );
    assert_eq!(
        (refused.code, refused.reason.as_str()),
        (Code::ResourceExhausted, "TOO_MANY_ATTEMPTS")
    );
    let wait = refused.details.retry_info().unwrap().retry_delay.unwrap();
    assert!((1..=30).contains(&wait.as_secs()), "{wait:?}");
    let refused = refusal(
        service
            .authenticate(&organization, "bob@example.org", "wrong")
            .await,
    );
    assert_eq!(refused.reason, "CREDENTIALS_INVALID");
}

#[tokio::test]
async fn guessing_is_slowed_for_a_source() {
    let mut service = Service::start_with(&["--max-concurrent-hashes", "2"]).await;
    let organization = service.organization().await;
    let mut refused = None;
    for index in 0..130 {
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
async fn a_right_password_forgets_the_wrong_ones() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    service
        .create(new_account(&organization, "Ann", "Lee", "ann@example.org"))
        .await;
    let letter = service.next_letter().await;
    service.activate(&letter.token, PASSWORD).await.unwrap();
    for _ in 0..3 {
        for _ in 0..6 {
            refusal(
                service
                    .authenticate(&organization, "ann@example.org", "wrong")
                    .await,
            );
        }
        service
            .authenticate(&organization, "ann@example.org", PASSWORD)
            .await
            .unwrap();
    }
}
