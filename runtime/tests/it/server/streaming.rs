//! Streaming calls.

use std::time::Duration;

use prost::Message as _;
use tonic::Code;
use tonic_types::StatusExt as _;
use usher_proto::notify::v1::WatchDeliveriesRequest;

use super::harness::{Server, WATCH, framed, post, reason};
use crate::support::soon;

#[tokio::test]
async fn a_stream_holds_its_permit_until_its_end() {
    let server = Server::start(&["--max-streaming-requests=1"]).await;
    for ends_by_itself in [true, false] {
        let mut stream = server.watch("wait").await.expect("a stream");
        assert!(stream.message().await.expect("a message").is_some());
        let refused = server.watch("").await.expect_err("no permit");
        assert_eq!(reason(&refused), "OVERLOADED");
        // Other calls have permits of their own.
        server.get("").await.expect("a call");
        server.handler.go_on.notify_one();
        if ends_by_itself {
            assert!(
                soon("the end", stream.message())
                    .await
                    .expect("no error")
                    .is_none()
            );
        }
        drop(stream);
        soon("the permit is free", async {
            while server.watch("").await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        soon("and again", async {
            while server.watch("").await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_producer_learns_that_its_caller_has_gone() {
    let server = Server::start(&[]).await;
    let mut stream = server.watch("watch").await.expect("a stream");
    assert!(stream.message().await.expect("a message").is_some());
    drop(stream);
    server.handler.until("gone").await;
    server.stop().await;
}

#[tokio::test]
async fn streams_end_with_a_reason() {
    let server = Server::start(&["--stream-idle-timeout=200ms", "--request-timeout=1s"]).await;
    for (what, code, expected) in [
        ("panic", Code::Internal, "INTERNAL"),
        ("fail", Code::Unavailable, "DEPENDENCY_UNAVAILABLE"),
        ("hang", Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
    ] {
        let mut stream = server.watch(what).await.expect("a stream");
        assert!(stream.message().await.expect("a message").is_some());
        let status = soon(what, stream.message()).await.expect_err("an error");
        assert_eq!((status.code(), reason(&status).as_str()), (code, expected));
    }
    let refused = server.watch("refuse").await.expect_err("refused");
    assert_eq!(reason(&refused), "DEPENDENCY_UNAVAILABLE");
    // A stream that is in use lasts longer than the idle limit.
    let mut stream = server.watch("busy").await.expect("a stream");
    let mut count = 0;
    while stream.message().await.expect("no error").is_some() {
        count += 1;
    }
    assert_eq!(count, 21);
    server.stop().await;
}

#[tokio::test]
async fn a_caller_that_stops_reading_keeps_no_permit() {
    let settings = ["--max-streaming-requests=1", "--stream-idle-timeout=200ms"];
    let server = Server::start(&settings).await;
    let request = WatchDeliveriesRequest {
        invitation_id: "flood".to_owned(),
        ..Default::default()
    };
    let client = server.raw().await;
    let mut ready = client.ready().await.expect("ready");
    let (answer, mut body) = ready.send_request(post(WATCH), false).expect("send");
    body.send_data(framed(&request.encode_to_vec()).into(), true)
        .expect("send");
    // Held, and never read.
    let _answer = soon("the first responses", answer)
        .await
        .expect("an answer");
    server.handler.until("gone").await;
    let mut next = server.watch("").await.expect("the permit is free");
    assert!(next.message().await.expect("a message").is_some());
    server.stop().await;
}

#[tokio::test]
async fn a_request_that_never_ends_takes_no_permit_of_streams() {
    let server = Server::start(&["--max-streaming-requests=1"]).await;
    let client = server.raw().await;
    let mut ready = client.ready().await.expect("ready");
    let (_answer, mut body) = ready.send_request(post(WATCH), false).expect("send");
    body.send_data(vec![0, 0].into(), false).expect("send");
    // The answer to the next request says that the server has seen this one.
    let mut ready = ready.ready().await.expect("ready");
    let (answer, _) = ready
        .send_request(post("/invented/Path"), true)
        .expect("send");
    soon("an answer", answer).await.expect("an answer");
    let mut stream = server.watch("").await.expect("a stream");
    assert!(stream.message().await.expect("a message").is_some());
    drop((body, stream));
    server.stop().await;
}

#[tokio::test]
async fn streams_end_when_the_service_stops() {
    let server = Server::start(&[]).await;
    let mut stream = server.watch("watch").await.expect("a stream");
    assert!(stream.message().await.expect("a message").is_some());
    server.stop.cancel();
    let status = soon("the end", stream.message())
        .await
        .expect_err("an error");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.get_details_retry_info().is_some());
    drop(stream);
    server.stop().await;
}
