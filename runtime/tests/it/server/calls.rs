//! Permits, deadlines and panics of calls.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tonic::{Code, Request};
use tonic_types::StatusExt as _;
use usher_proto::notify::v1::GetDeliveryRequest;

use super::harness::{Server, reason};

#[tokio::test]
async fn calls_beyond_the_permits_are_refused_and_health_is_not() {
    let server = Arc::new(Server::start(&["--max-concurrent-requests=1"]).await);
    let first = tokio::spawn({
        let server = Arc::clone(&server);
        async move { server.get("wait").await }
    });
    server.handler.until("waiting").await;
    let refused = server.get("").await.expect_err("no permit");
    assert_eq!(reason(&refused), "OVERLOADED");
    assert!(refused.get_details_retry_info().is_some());
    assert!(server.is_healthy().await);
    server.handler.go_on.notify_one();
    first.await.expect("no panic").expect("an answer");
    server.get("").await.expect("the permit is free");
}

#[tokio::test]
async fn a_call_that_hangs_frees_its_permit_at_its_deadline() {
    let settings = ["--max-concurrent-requests=1", "--request-timeout=300ms"];
    let server = Server::start(&settings).await;
    for _ in 0..3 {
        let status = server.get("hang").await.expect_err("too late");
        assert_eq!(reason(&status), "DEADLINE_EXCEEDED");
    }
    server.get("").await.expect("the permit is free");
    server.stop().await;
}

#[tokio::test]
async fn the_deadline_of_the_caller_holds_too() {
    let server = Server::start(&[]).await;
    let mut request = Request::new(GetDeliveryRequest {
        delivery_id: "hang".to_owned(),
        ..Default::default()
    });
    request.set_timeout(Duration::from_millis(500));
    let started = Instant::now();
    let mut client = server.client.clone();
    let status = client.get_delivery(request).await.expect_err("too late");
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(reason(&status), "DEADLINE_EXCEEDED");
    server.stop().await;
}

#[tokio::test]
async fn a_panic_is_answered() {
    let server = Server::start(&["--max-concurrent-requests=1"]).await;
    for _ in 0..2 {
        let status = server.get("panic").await.expect_err("a panic");
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::Internal, "INTERNAL")
        );
        assert!(!status.message().contains("on purpose"));
    }
    server.stop().await;
}
