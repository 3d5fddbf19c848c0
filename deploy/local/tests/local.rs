//! The local mode from outside: what a newcomer does with it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests say what went wrong by panicking"
)]

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use nix::sys::signal::Signal;
use support::{UsherLocal, assert_ends, between, postgres_process, run_to_end, usher_local};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};
use usher_proto::account::v1::account_service_client::AccountServiceClient;
use usher_proto::account::v1::{
    Account, AccountState, CreateAccountRequest, InvitePolicy, ListAccountsRequest,
};

const PASSWORD: &str = "seven quiet lighthouses";

async fn accounts(usher: &UsherLocal) -> AccountServiceClient<Channel> {
    let url = format!("http://{}", usher.account);
    let channel = Endpoint::from_shared(url).unwrap().connect().await.unwrap();
    AccountServiceClient::new(channel)
}

async fn create_ada(usher: &UsherLocal) {
    let request = CreateAccountRequest {
        organization_id: usher.organization_id.clone(),
        account: Some(Account {
            given_name: "Ada".to_owned(),
            family_name: "Lovelace".to_owned(),
            email: Some("ada@example.org".to_owned()),
            ..Account::default()
        }),
        invite: InvitePolicy::Auto.into(),
        ..CreateAccountRequest::default()
    };
    accounts(usher).await.create_account(request).await.unwrap();
}

async fn states(usher: &UsherLocal) -> Vec<AccountState> {
    let request = ListAccountsRequest {
        organization_id: usher.organization_id.clone(),
        ..ListAccountsRequest::default()
    };
    let response = accounts(usher).await.list_accounts(request).await.unwrap();
    let accounts = response.into_inner().accounts;
    accounts.iter().map(Account::state).collect()
}

/// A directory that the unprivileged user may enter, where the tests run as root.
fn scratch() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    folder
}

#[tokio::test]
async fn a_client_is_invited_and_activates_on_the_web_page() {
    let usher = UsherLocal::start(None);
    create_ada(&usher).await;

    let mail = usher.first_mail().await;
    let (status, page) = usher.get(&mail).await;
    assert_eq!(status, 200);
    assert!(page.contains("Ada Lovelace &lt;ada@example.org&gt;"));
    assert!(page.contains("Message-ID:") && page.contains("sandbox="));
    let (_, html) = usher.get(&format!("{mail}/html")).await;
    let token = between(&html, "/activate?token=", "\"").unwrap();

    let (status, form) = usher.get(&format!("/activate?token={token}")).await;
    assert_eq!(status, 200);
    assert!(form.contains("a***@example.org") && form.contains("Harbour Clinic"));
    let request_id = between(&form, "name=\"request_id\" value=\"", "\"").unwrap();
    let activate = async |password| {
        let fields = [
            ("token", token),
            ("password", password),
            ("request_id", request_id),
        ];
        usher.post("/activate", &fields).await
    };
    let (status, refused) = activate("short").await;
    assert_eq!(status, 422);
    assert!(
        between(&refused, "role=\"alert\">", "<")
            .unwrap()
            .contains("short")
    );
    assert_eq!(states(&usher).await, [AccountState::Invited]);

    let (status, page) = activate(PASSWORD).await;
    assert_eq!(status, 200);
    assert!(page.contains("Your account is active"));
    assert_eq!(states(&usher).await, [AccountState::Active]);

    let (status, used) = usher.get(&format!("/activate?token={token}")).await;
    assert_eq!(status, 410);
    assert!(used.contains("used already"));

    let organization_id = usher.organization_id.as_str();
    let login = async |password| {
        let fields = [
            ("organization_id", organization_id),
            ("email", "ada@example.org"),
            ("password", password),
        ];
        usher.post("/login", &fields).await
    };
    assert_eq!(login("something else").await.0, 401);
    let (status, page) = login(PASSWORD).await;
    assert_eq!(status, 200);
    assert!(page.contains("first login"));
    assert!(usher.end(Signal::SIGINT).await);
}

#[tokio::test]
async fn data_survive_a_restart_and_a_kill() {
    let scratch = scratch();
    let data_dir = scratch.path().join("data");

    let first = UsherLocal::start(Some(&data_dir));
    create_ada(&first).await;
    first.first_mail().await;
    let organization_id = first.organization_id.clone();
    let postgres = postgres_process(&data_dir);
    assert!(first.end(Signal::SIGINT).await);
    assert_ends(postgres).await;

    let second = UsherLocal::start(Some(&data_dir));
    assert_eq!(second.organization_id, organization_id);
    assert_eq!(states(&second).await, [AccountState::Invited]);
    let postgres = postgres_process(&data_dir);
    assert!(!second.end(Signal::SIGKILL).await);
    assert_ends(postgres).await;

    let third = UsherLocal::start(Some(&data_dir));
    assert_eq!(states(&third).await, [AccountState::Invited]);
    assert!(third.end(Signal::SIGTERM).await);
}

#[test]
fn a_taken_port_is_named_with_the_flag_that_changes_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for flag in ["--account-port", "--notify-port", "--web-port"] {
        let mut command = usher_local();
        let output = run_to_end(command.arg(format!("{flag}={port}")));
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success());
        assert!(message.contains(&format!("port {port}")), "{message}");
        assert!(message.contains(flag), "{message}");
    }
}

#[test]
fn a_directory_of_somebody_else_is_left_alone() {
    let scratch = scratch();
    fs::write(scratch.path().join("thesis.txt"), "years of work").unwrap();
    let output = run_to_end(usher_local().arg("--data-dir").arg(scratch.path()));
    assert!(!output.status.success());
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("--data-dir"), "{message}");
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
}

#[test]
fn missing_programs_are_named() {
    let scratch = scratch();
    let output = run_to_end(usher_local().arg("--postgres-bin").arg(scratch.path()));
    assert!(!output.status.success());
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("initdb"), "{message}");
}

#[tokio::test]
async fn pages_keep_to_themselves() {
    let usher = UsherLocal::start(None);
    let (status, head, _) = usher.get_as("localhost", "/").await;
    assert_eq!(status, 200);
    let head = head.to_ascii_lowercase();
    for header in [
        "content-security-policy: default-src 'none'",
        "cache-control: no-store",
        "referrer-policy: no-referrer",
        "x-content-type-options: nosniff",
    ] {
        assert!(head.contains(header), "{head}");
    }
    let (status, _, body) = usher.get_as("rebound.example", "/").await;
    assert_eq!(status, 421);
    assert!(!body.contains("Inbox"));
    let (status, page) = usher.get("/activate?token=forged").await;
    assert_eq!(status, 404);
    assert!(page.contains("not complete"));
    assert_eq!(usher.get("/activate").await.0, 404);
}
