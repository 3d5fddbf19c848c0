//! Client certificates, and files that change while the server runs.

use rcgen::ExtendedKeyUsagePurpose;
use tokio::{io::AsyncReadExt as _, net::TcpStream};
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::harness::{Authority, CERTIFICATE, KEY, PATIENCE, TestServer, channel, write};

const AUTHORITIES: &str = "tls-client-ca-file";
const GRANTS: &str = "caller-grants-file";

const GRANTED: &str =
    r#"{"spiffe://example.org/portal": {"scopes": []}, "portal.example.org": {"scopes": []}}"#;
const URI: &str = "spiffe://example.org/portal";

/// A server with mutual TLS, which knows clients by their certificates.
async fn mutual_tls(authority: &Authority) -> TestServer {
    let files = [(AUTHORITIES, authority.pem.as_str()), (GRANTS, GRANTED)];
    TestServer::start(authority, &files, &["--max-connections=4"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_lets_in_by_its_one_name() {
    let authority = Authority::new("one");
    let server = mutual_tls(&authority).await;
    let answer = async |names: &[&str]| {
        let identity = authority.client(names);
        server.answer(&authority.connector(Some(&identity))).await
    };
    assert_eq!(answer(&[URI]).await, Code::Ok);
    // A URI counts for more than a DNS name.
    assert_eq!(answer(&["other.example.org", URI]).await, Code::Ok);
    assert_eq!(answer(&["portal.example.org"]).await, Code::Ok);
    for stranger in [
        &["spiffe://example.org/other"][..],
        &["spiffe://example.org/other", "portal.example.org"],
        &[URI, "spiffe://example.org/other"],
        &["portal.example.org", "other.example.org"],
        &[],
    ] {
        assert_eq!(
            answer(stranger).await,
            Code::Unauthenticated,
            "{stranger:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_good_certificate_is_not_taken() {
    let (authority, stranger) = (Authority::new("one"), Authority::new("two"));
    let server = mutual_tls(&authority).await;
    let foreign = stranger.client(&[URI]);
    let of_a_server = authority.sign(&[URI], ExtendedKeyUsagePurpose::ServerAuth);
    for identity in [None, Some(&foreign), Some(&of_a_server)] {
        let channel = channel(server.address, authority.connector(identity));
        // Health too: who has no certificate does not even get to ask.
        let health = HealthClient::new(channel)
            .check(HealthCheckRequest::default())
            .await;
        assert!(health.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_authority_and_a_removed_grant_shut_out() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let server = mutual_tls(&old).await;
    let old_identity = old.client(&[URI]);
    // One connector for all: it offers to resume the sessions that it had.
    let old_client = old.connector(Some(&old_identity));
    server.until_answer(&old_client, Code::Ok).await;

    // The server's own certificate stays, so that only the removed authority can be what shuts out.
    write(&server.directory, AUTHORITIES, &new.pem);
    let new_identity = new.client(&[URI]);
    let new_client = old.connector(Some(&new_identity));
    server.until_answer(&new_client, Code::Ok).await;
    assert_ne!(server.answer(&old_client).await, Code::Ok);

    write(&server.directory, GRANTS, "{}");
    server
        .until_answer(&new_client, Code::Unauthenticated)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_presented_and_a_broken_one_is_not() {
    let (authority, next) = (Authority::new("one"), Authority::new("two"));
    let server = mutual_tls(&authority).await;
    let identity = authority.client(&[URI]);
    let (certificate, key) = next.server();
    // Certificate and key do not belong together: the old pair stays.
    write(&server.directory, CERTIFICATE, &certificate);
    let client = authority.connector(Some(&identity));
    assert_eq!(server.answer(&client).await, Code::Ok);

    write(&server.directory, KEY, &key);
    let client = next.connector(Some(&identity));
    server.until_answer(&client, Code::Ok).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_handshake_ends() {
    let authority = Authority::new("one");
    let server = mutual_tls(&authority).await;
    let mut stalled = TcpStream::connect(server.address).await.unwrap();
    let end = tokio::time::timeout(PATIENCE, stalled.read(&mut [0; 1])).await;
    assert!(matches!(end, Ok(Ok(0) | Err(_))), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_handshakes_hold_up_nobody() {
    let authority = Authority::new("one");
    let server = mutual_tls(&authority).await;
    let mut stalled = Vec::new();
    for _ in 0..50 {
        stalled.push(TcpStream::connect(server.address).await.unwrap());
    }
    let identity = authority.client(&[URI]);
    let client = authority.connector(Some(&identity));
    assert_eq!(server.answer(&client).await, Code::Ok);
}
