use std::collections::HashMap;

use data_encoding::BASE64URL_NOPAD;
use futures::future::join_all;
use tonic::Code;
use usher_proto::account::v1::{
    AccountState, ActivateAccountRequest, InvitationState, Organization, RevokeInvitationRequest,
    TokenPurpose, TokenStatus,
};

use crate::support::{
    PASSWORD, Service, assert_refused, new_account, refusal, update_organization,
};

#[tokio::test]
async fn a_client_takes_an_account_over() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let account = service
        .create(new_account(&organization, "Ann", "Lee", "ann@example.org"))
        .await;
    let link = service.next_link().await;

    let inspected = service.inspect(&link.token).await.unwrap();
    assert_eq!(inspected.purpose(), TokenPurpose::Activation);
    assert_eq!(inspected.status(), TokenStatus::Valid);
    assert_eq!(inspected.masked_email, "a***@example.org");
    assert_eq!(inspected.organization.unwrap().display_name, "Acme");
    assert_eq!(inspected.password_policy.unwrap().min_length, 15);
    assert!(!inspected.has_login);

    let activated = service.activate(&link.token, PASSWORD).await.unwrap();
    assert_eq!(activated.account_id, account.account_id);
    let account = service.account(&organization, &account.account_id).await;
    assert_eq!(account.state(), AccountState::Active);
    assert_eq!(
        account.last_invitation.unwrap().state(),
        InvitationState::Accepted
    );
    assert_eq!(account.last_login_time, None);

    let login = service
        .authenticate(&organization, "ANN@example.org", PASSWORD)
        .await
        .unwrap();
    assert_eq!(
        (login.person_id, login.account_id),
        (activated.person_id, account.account_id.clone())
    );
    let account = service.account(&organization, &account.account_id).await;
    assert!(account.last_login_time.is_some());
}

#[tokio::test]
async fn of_64_callers_with_one_token_one_wins() {
    let mut service = Service::start_with(&["--max-concurrent-hashes", "2"]).await;
    let organization = service.organization().await;
    service
        .create(new_account(&organization, "Ann", "Lee", "ann@example.org"))
        .await;
    let link = service.next_link().await;

    let results = join_all((0..64).map(|_| service.activate(&link.token, PASSWORD))).await;
    let mut reasons: HashMap<String, usize> = HashMap::new();
    for result in results {
        let outcome = if result.is_ok() {
            "OK".to_owned()
        } else {
            refusal(result).reason
        };
        *reasons.entry(outcome).or_default() += 1;
    }
    assert_eq!(reasons["OK"], 1, "{reasons:?}");
    // Who came late is told that the link was used. Who arrived after the Person existed, and before the
    // token was seen used, cannot be: both are written in one transaction.
    assert_eq!(reasons["TOKEN_USED"], 63, "{reasons:?}");
    let persons: i64 = sqlx::query_scalar("SELECT count(*) FROM persons")
        .fetch_one(&mut service.admin().await)
        .await
        .unwrap();
    assert_eq!(persons, 1);
}

#[tokio::test]
async fn a_thousand_inspections_consume_nothing() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    service
        .create(new_account(&organization, "Ann", "Lee", "ann@example.org"))
        .await;
    let link = service.next_link().await;
    for _ in 0..20 {
        for result in join_all((0..50).map(|_| service.inspect(&link.token))).await {
            assert_eq!(result.unwrap().status(), TokenStatus::Valid);
        }
    }
    service.activate(&link.token, PASSWORD).await.unwrap();
}

#[tokio::test]
async fn a_link_that_does_not_work_says_why() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let mut links = HashMap::new();
    for (reason, name) in [
        ("TOKEN_EXPIRED", "Abel"),
        ("TOKEN_REVOKED", "Bertha"),
        ("TOKEN_SUPERSEDED", "Cyrus"),
        ("TOKEN_USED", "Dagmar"),
    ] {
        let email = format!("{name}@example.org");
        let account = service
            .create(new_account(
                &organization,
                name,
                &format!("{name}son"),
                &email,
            ))
            .await;
        links.insert(reason, (account, service.next_link().await));
    }
    let (_, expired) = &links["TOKEN_EXPIRED"];
    for table in ["tokens", "invitations"] {
        let statement = format!(
            "UPDATE {table} SET expire_time = now() - interval '1 second' WHERE invitation_id = $1::uuid"
        );
        sqlx::query(sqlx::AssertSqlSafe(statement))
            .bind(&expired.event.invitation_id)
            .execute(&mut service.admin().await)
            .await
            .unwrap();
    }
    let (_, revoked) = &links["TOKEN_REVOKED"];
    let request = RevokeInvitationRequest {
        organization_id: organization.clone(),
        invitation_id: revoked.event.invitation_id.clone(),
        ..Default::default()
    };
    service
        .invitations
        .revoke_invitation(request)
        .await
        .unwrap();
    let (superseded, _) = &links["TOKEN_SUPERSEDED"];
    service
        .sent(superseded.last_invitation.as_ref().unwrap())
        .await;
    let newer = service.invite(superseded).await;
    service.sent(&newer).await;
    let (_, used) = &links["TOKEN_USED"];
    service.activate(&used.token, PASSWORD).await.unwrap();

    for (reason, status) in [
        ("TOKEN_EXPIRED", TokenStatus::Expired),
        ("TOKEN_REVOKED", TokenStatus::Revoked),
        ("TOKEN_SUPERSEDED", TokenStatus::Superseded),
        ("TOKEN_USED", TokenStatus::Used),
    ] {
        let (_, link) = &links[reason];
        let result = service.activate(&link.token, PASSWORD).await;
        assert_refused(result, Code::FailedPrecondition, reason, &[]);
        // The page can say so before a password is typed.
        let inspected = service.inspect(&link.token).await.unwrap();
        assert_eq!(inspected.status(), status);
    }
    let states = [
        ("TOKEN_EXPIRED", AccountState::NotInvited),
        ("TOKEN_REVOKED", AccountState::NotInvited),
        ("TOKEN_SUPERSEDED", AccountState::Invited),
        ("TOKEN_USED", AccountState::Active),
    ];
    for (reason, state) in states {
        let account = service
            .account(&organization, &links[reason].0.account_id)
            .await;
        assert_eq!(account.state(), state, "{reason}");
    }

    let forged = BASE64URL_NOPAD.encode(&[7; 32]);
    for token in [forged.as_str(), "", "short", "ünïcode", &"x".repeat(10_000)] {
        let result = service.activate(token, PASSWORD).await;
        assert_refused(result, Code::NotFound, "TOKEN_UNKNOWN", &[]);
        let result = service.inspect(token).await;
        assert_refused(result, Code::NotFound, "TOKEN_UNKNOWN", &[]);
    }
}

#[tokio::test]
async fn bad_passwords_are_refused_and_the_link_still_works() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    service
        .create(new_account(
            &organization,
            "Zoë",
            "O'Sullivan",
            "zoe@example.org",
        ))
        .await;
    let link = service.next_link().await;
    for password in [
        "short",
        "passwordpassword",
        "Zoe.OSullivan.2026",
        &"x".repeat(5_000),
    ] {
        let result = service.activate(&link.token, password).await;
        assert_refused(
            result,
            Code::InvalidArgument,
            "PASSWORD_REFUSED",
            &["password"],
        );
    }
    service.activate(&link.token, PASSWORD).await.unwrap();
}

#[tokio::test]
async fn a_link_does_not_set_the_password_of_somebody_who_has_one() {
    let mut service = Service::start().await;
    let (one, other) = (service.organization().await, service.organization().await);
    // Both invite before anybody has proved the email.
    let mine = service
        .create(new_account(&one, "Ann", "Lee", "ann@example.org"))
        .await;
    let first = service.next_link().await;
    let theirs = service
        .create(new_account(&other, "Ann", "Lee", "ann@example.org"))
        .await;
    let second = service.next_link().await;
    let activated = service.activate(&first.token, PASSWORD).await.unwrap();

    // Whoever runs the other portal sees its token.
    assert!(service.inspect(&second.token).await.unwrap().has_login);
    let result = service
        .activate(&second.token, "another long secret phrase")
        .await;
    assert_refused(result, Code::Unauthenticated, "CREDENTIALS_INVALID", &[]);
    service
        .authenticate(&one, "ann@example.org", PASSWORD)
        .await
        .unwrap();

    let linked = service.activate(&second.token, PASSWORD).await.unwrap();
    assert_eq!(linked.person_id, activated.person_id);
    for (organization, account) in [(&one, &mine), (&other, &theirs)] {
        let account = service.account(organization, &account.account_id).await;
        assert_eq!(account.state(), AccountState::Active);
    }
}

#[tokio::test]
async fn a_repeated_activation_gets_the_same_answer() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    service
        .create(new_account(&organization, "Ann", "Lee", "ann@example.org"))
        .await;
    let link = service.next_link().await;
    let request = ActivateAccountRequest {
        token: link.token,
        password: PASSWORD.to_owned(),
        request_id: "11111111-1111-4111-8111-111111111111".to_owned(),
        ..Default::default()
    };
    let first = service
        .activation
        .activate_account(request.clone())
        .await
        .unwrap()
        .into_inner();
    let second = service
        .activation
        .activate_account(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(first, second);
}

#[tokio::test]
async fn a_repeated_activation_with_a_wrong_password_gets_no_answer() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    service
        .create(new_account(&organization, "Ann", "Lee", "ann@example.org"))
        .await;
    let link = service.next_link().await;
    let request = ActivateAccountRequest {
        token: link.token,
        password: PASSWORD.to_owned(),
        request_id: "11111111-1111-4111-8111-111111111111".to_owned(),
        source: "192.0.2.7".to_owned(),
    };
    let mut activation = service.activation.clone();
    activation.activate_account(request.clone()).await.unwrap();
    let wrong = ActivateAccountRequest {
        password: "another password, as long".to_owned(),
        ..request.clone()
    };
    for attempt in 0..12 {
        let result = activation.activate_account(wrong.clone()).await;
        // Slowed like a login.
        let (code, reason) = if attempt < 10 {
            (Code::Unauthenticated, "CREDENTIALS_INVALID")
        } else {
            (Code::ResourceExhausted, "TOO_MANY_ATTEMPTS")
        };
        assert_refused(result, code, reason, &[]);
    }
}

#[tokio::test]
async fn a_return_origin_that_was_removed_is_not_returned_to() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let allow = |origin: &str| {
        let new = Organization {
            allowed_return_origins: vec![origin.to_owned()],
            ..Default::default()
        };
        update_organization(&organization, &["allowed_return_origins"], new)
    };
    service
        .update_organization(allow("https://app.example.org"))
        .await;
    let mut request = new_account(&organization, "Ann", "Lee", "ann@example.org");
    request.return_url = "https://app.example.org/done".to_owned();
    service.create(request).await;
    let link = service.next_link().await;
    let inspected = service.inspect(&link.token).await.unwrap();
    assert_eq!(inspected.return_url, "https://app.example.org/done");
    service
        .update_organization(allow("https://other.example.org"))
        .await;
    let inspected = service.inspect(&link.token).await.unwrap();
    assert_eq!(inspected.return_url, "");
    let activated = service.activate(&link.token, PASSWORD).await.unwrap();
    assert_eq!(activated.return_url, "");
}

#[tokio::test]
async fn of_two_activations_at_once_with_one_request_id_the_right_password_is_answered() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    for name in ["Ann Lee", "Bo Diaz", "Cy Fox", "Di Rossi", "Ed Kim"] {
        let (given, family) = name.split_once(' ').unwrap();
        let email = format!("{family}@example.org");
        service
            .create(new_account(&organization, given, family, &email))
            .await;
        let link = service.next_link().await;
        let activate = async |password: &str, request_id: &str| {
            let request = ActivateAccountRequest {
                token: link.token.clone(),
                password: password.to_owned(),
                request_id: request_id.to_owned(),
                source: String::new(),
            };
            let mut client = service.activation.clone();
            client.activate_account(request).await.is_ok()
        };
        let request_id = uuid::Uuid::now_v7().to_string();
        let other = "another password, as long";
        let (one, two) = tokio::join!(
            activate(PASSWORD, &request_id),
            activate(other, &request_id),
        );
        let logs_in = async |password: &str| {
            service
                .authenticate(&organization, &email, password)
                .await
                .is_ok()
        };
        assert_eq!((one, two), (logs_in(PASSWORD).await, logs_in(other).await));
        assert!(one != two);
    }
}
