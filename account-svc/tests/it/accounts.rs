use tonic::Code;
use usher_proto::account::v1::{
    Account, AccountFilter, AccountState, Address, Contact, CreateAccountRequest, Date,
    GetAccountRequest, InvitationState, InvitePolicy, ListAccountsRequest, Member,
    PlatformMatchPolicy,
};
use usher_proto::event::v1::event::Payload;

use crate::support::{Service, assert_invalid, assert_refused, new_account, update_account};

#[tokio::test]
async fn an_account_without_an_email_is_managed() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let account = service
        .create(new_account(&organization, "Ann", "Lee", ""))
        .await;
    assert_eq!(account.state(), AccountState::Managed);
    assert_eq!(account.last_invitation, None);
}

/// The answer is not read back from the database.
#[tokio::test]
async fn the_answer_to_a_create_is_the_account_as_it_is_read() {
    let mut service = Service::start().await;
    let (one, other) = (service.organization().await, service.organization().await);
    service.activated(&one).await;
    let new = |given: &str, email: &str| new_account(&other, given, "Diaz", email);
    let requests = [
        new("Bo", ""),
        CreateAccountRequest {
            invite: InvitePolicy::Hold.into(),
            ..new("Cy", "cy@example.org")
        },
        CreateAccountRequest {
            form_id: "intake".to_owned(),
            return_url: "https://portal.acme.example/welcome".to_owned(),
            ..new("Di", "di@example.org")
        },
        CreateAccountRequest {
            on_platform_match: PlatformMatchPolicy::RequestShare.into(),
            ..new("Ann", "ann@example.org")
        },
    ];
    let mut states = Vec::new();
    for request in requests {
        let created = service.create(request).await;
        states.push(created.state());
        assert_eq!(service.account(&other, &created.account_id).await, created);
        if let Some(invitation) = created.last_invitation {
            let read = service.invitation(&other, &invitation.invitation_id).await;
            assert_eq!(read, invitation);
        }
    }
    assert_eq!(
        states,
        [
            AccountState::Managed,
            AccountState::NotInvited,
            AccountState::Invited,
            AccountState::ShareRequested
        ]
    );
}

#[tokio::test]
async fn an_account_with_an_email_is_invited_at_once_unless_held_back() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let held = service
        .create(CreateAccountRequest {
            invite: InvitePolicy::Hold.into(),
            ..new_account(&organization, "Bo", "Diaz", "bo@example.org")
        })
        .await;
    assert_eq!(held.state(), AccountState::NotInvited);

    let invited = service
        .create(new_account(
            &organization,
            "Ann",
            "Lee",
            "ann@bücher.example",
        ))
        .await;
    assert_eq!(invited.state(), AccountState::Invited);
    assert_eq!(invited.email(), "ann@xn--bcher-kva.example");
    let invitation = invited.last_invitation.unwrap();
    assert_eq!(invitation.state(), InvitationState::Queued);
    assert_eq!(invitation.recipient, "a***@xn--bcher-kva.example");

    // The only link is the one that was not held back.
    let link = service.next_link().await;
    assert_eq!(link.event.invitation_id, invitation.invitation_id);
    assert_eq!(link.event.recipient, "ann@xn--bcher-kva.example");
    assert_eq!(
        (link.event.send_number, link.event.locale.as_str()),
        (1, "en")
    );
}

#[tokio::test]
async fn everything_that_staff_enter_is_stored() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let mut request = new_account(&organization, "  Zoe\u{308} ", "O'Neil", "");
    let profile = request.account.as_mut().unwrap();
    profile.birth_date = Some(Date {
        year: 1980,
        month: 2,
        day: 29,
    });
    profile.phone = Some("+33123456789".to_owned());
    profile.plan = "pro".to_owned();
    profile.assigned_staff = "staff-7".to_owned();
    profile.locale = "fr-ca".to_owned();
    profile
        .attributes
        .insert("source".to_owned(), "fair".to_owned());
    profile.members.push(Member {
        given_name: "Kim".to_owned(),
        family_name: "O'Neil".to_owned(),
        birth_date: Some(Date {
            year: 2020,
            month: 1,
            day: 1,
        }),
        relation: "child".to_owned(),
    });
    profile.addresses.push(Address {
        lines: vec!["1, rue de la Paix".to_owned()],
        country_code: "fr".to_owned(),
        ..Default::default()
    });
    profile.contacts.push(Contact {
        name: "Max Mustermann".to_owned(),
        email: Some("max@example.org".to_owned()),
        ..Default::default()
    });
    let created = service.create(request).await;
    let read = service.account(&organization, &created.account_id).await;
    assert_eq!(read, created);
    assert_eq!(
        (read.given_name.as_str(), read.locale.as_str()),
        ("Zoë", "fr-CA")
    );
    assert_eq!(read.addresses[0].country_code, "FR");
    assert_eq!(read.members[0].given_name, "Kim");
}

#[tokio::test]
async fn names_that_show_nothing_or_become_links_are_refused() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let mut request = new_account(&organization, "\u{3164}", "evil.com/free", "");
    if let Some(account) = &mut request.account {
        account.members.push(Member {
            given_name: "www.evil".to_owned(),
            family_name: "\u{200B}".to_owned(),
            ..Default::default()
        });
        account.contacts.push(Contact {
            name: "Ann https://evil.example".to_owned(),
            ..Default::default()
        });
    }
    let result = service.accounts.create_account(request).await;
    assert_invalid(
        result,
        &[
            "account.contacts[0].name",
            "account.family_name",
            "account.given_name",
            "account.members[0].family_name",
            "account.members[0].given_name",
        ],
    );
}

#[tokio::test]
async fn another_organizations_account_is_not_there() {
    let mut service = Service::start().await;
    let (mine, theirs) = (service.organization().await, service.organization().await);
    let account = service.create(new_account(&theirs, "Ann", "Lee", "")).await;
    let result = service
        .accounts
        .get_account(GetAccountRequest {
            organization_id: mine,
            account_id: account.account_id,
        })
        .await;
    assert_refused(result, Code::NotFound, "ACCOUNT_NOT_FOUND", &[]);
}

#[tokio::test]
async fn accounts_are_listed_by_state_in_pages_newest_first() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let mut created = Vec::new();
    for index in 0..7 {
        let name = ["Ada", "Bea", "Cyd", "Dov", "Eve", "Fay", "Gus"][index];
        let email = if index % 2 == 0 {
            format!("{name}@example.org")
        } else {
            String::new()
        };
        let family = format!("Family{name}");
        created.push(
            service
                .create(new_account(&organization, name, &family, &email))
                .await,
        );
    }
    let mut listed = Vec::new();
    let mut request = ListAccountsRequest {
        organization_id: organization.clone(),
        filter: Some(AccountFilter {
            states: vec![AccountState::Invited.into()],
            ..Default::default()
        }),
        page_size: 3,
        page_token: String::new(),
    };
    loop {
        let page = service
            .accounts
            .list_accounts(request.clone())
            .await
            .unwrap()
            .into_inner();
        assert!(page.accounts.len() <= 3);
        listed.extend(page.accounts.into_iter().map(|account| account.given_name));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(listed, ["Gus", "Eve", "Cyd", "Ada"]);

    // The token belongs to the list with that filter.
    request.filter = None;
    let result = service.accounts.list_accounts(request).await;
    assert_refused(
        result,
        Code::InvalidArgument,
        "PAGE_TOKEN_MISMATCH",
        &["page_token"],
    );
}

#[tokio::test]
async fn a_page_may_be_empty_before_the_end_of_a_long_list() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let oldest = service
        .create(new_account(
            &organization,
            "Old",
            "Est",
            "oldest@example.org",
        ))
        .await;
    // None of them is what is asked for.
    sqlx::query(
        "INSERT INTO accounts (organization_id, account_id, given_name, family_name, members, addresses,
            contacts, plan, assigned_staff, attributes, locale, given_name_hash, family_name_hash,
            keys_version)
        SELECT organization_id, ('ffffffff-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'N', 'N', '[]',
            '[]', '[]', '', '', '{}', 'en', 1, 1, 1
        FROM accounts, generate_series(1, 20500) AS n",
    )
    .execute(&mut service.admin().await)
    .await
    .unwrap();
    let mut request = ListAccountsRequest {
        organization_id: organization,
        filter: Some(AccountFilter {
            states: vec![AccountState::Invited.into()],
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut pages = Vec::new();
    loop {
        let page = service
            .accounts
            .list_accounts(request.clone())
            .await
            .unwrap()
            .into_inner();
        pages.push(page.accounts);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(pages.len(), 2);
    assert!(pages[0].is_empty());
    assert_eq!(pages[1][0].account_id, oldest.account_id);
}

#[tokio::test]
async fn a_new_email_revokes_the_old_invitation_and_invites_again() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let account = service
        .create(new_account(&organization, "Ann", "Lee", "old@example.org"))
        .await;
    let old = service.next_link().await;

    let request = update_account(
        &account,
        &["email"],
        Account {
            email: Some("new@example.org".to_owned()),
            etag: account.etag.clone(),
            ..Default::default()
        },
    );
    let updated = service.update(request.clone()).await;
    assert_eq!(
        (updated.email(), updated.state()),
        ("new@example.org", AccountState::Invited)
    );
    let before = service
        .invitation(&organization, &old.event.invitation_id)
        .await;
    assert_eq!(before.state(), InvitationState::Revoked);

    // notify-svc is told not to send what it may not have sent yet.
    let revoked = service.next_event().await.payload;
    let Some(Payload::InvitationRevoked(revoked)) = revoked else {
        panic!("{revoked:?}");
    };
    assert_eq!(
        (revoked.invitation_id, revoked.send_number),
        (old.event.invitation_id, 1)
    );
    assert_eq!(service.next_link().await.event.recipient, "new@example.org");

    // Somebody who read the account before is told.
    let result = service.accounts.update_account(request).await;
    let refused = assert_refused(result, Code::Aborted, "ETAG_MISMATCH", &[]);
    assert!(
        refused.message.starts_with("account.etag: the account"),
        "{}",
        refused.message
    );
}

#[tokio::test]
async fn an_email_can_be_added_later_and_taken_away() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let account = service
        .create(new_account(&organization, "Ann", "Lee", ""))
        .await;
    let email = Account {
        email: Some("ann@example.org".to_owned()),
        ..Default::default()
    };
    let updated = service
        .update(update_account(&account, &["email"], email))
        .await;
    assert_eq!(updated.state(), AccountState::Invited);
    let updated = service
        .update(update_account(&account, &["email"], Account::default()))
        .await;
    assert_eq!(updated.state(), AccountState::Managed);
    let invitation = updated.last_invitation.unwrap();
    assert_eq!(invitation.state(), InvitationState::Revoked);
}

#[tokio::test]
async fn only_named_fields_change_and_only_known_ones_can() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let account = service
        .create(new_account(&organization, "Ann", "Lee", "ann@example.org"))
        .await;
    let with = Account {
        given_name: "Bob".to_owned(),
        plan: "pro".to_owned(),
        ..Default::default()
    };
    let updated = service
        .update(update_account(&account, &["plan"], with.clone()))
        .await;
    assert_eq!(
        (updated.given_name.as_str(), updated.plan.as_str()),
        ("Ann", "pro")
    );
    assert_eq!(updated.email(), "ann@example.org");

    for paths in [&["state"][..], &["account_id"], &["*"], &[]] {
        let result = service
            .accounts
            .update_account(update_account(&account, paths, with.clone()))
            .await;
        let refused = assert_invalid(result, &["update_mask"]);
        let description = &refused.details.bad_request().unwrap().field_violations[0].description;
        // All that can be changed, to the last one.
        assert!(description.ends_with(", locale"), "{description}");
        for path in paths {
            assert!(description.contains(path), "{description}");
        }
    }
}

#[tokio::test]
async fn holders_under_the_minimum_age_are_refused() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let born = |year| {
        let mut request = new_account(&organization, "Kim", "Lee", "");
        request.account.as_mut().unwrap().birth_date = Some(Date {
            year,
            month: 1,
            day: 1,
        });
        request
    };
    let result = service.accounts.create_account(born(2020)).await;
    assert_refused(
        result,
        Code::InvalidArgument,
        "HOLDER_UNDER_AGE",
        &["account.birth_date"],
    );
    let result = service.accounts.create_account(born(9998)).await;
    assert_invalid(result, &["account.birth_date"]);
    service.create(born(1980)).await;
}
