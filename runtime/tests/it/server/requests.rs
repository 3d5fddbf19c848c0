//! How requests are received: as one message, within bounds.

use std::time::Duration;

use prost::{Message as _, bytes::Bytes};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use usher_proto::notify::v1::ListDeliveriesRequest;

use super::harness::{GET, Server, framed, post, reason, send};
use crate::support::soon;

#[tokio::test]
async fn unfinished_requests_keep_nobody_out() {
    let server = Server::start(&["--max-concurrent-requests=4", "--request-timeout=2s"]).await;
    let mut unfinished = Vec::new();
    for _ in 0..2 {
        let client = server.raw().await;
        for _ in 0..256 {
            let mut ready = client.clone().ready().await.expect("ready");
            let (answer, mut body) = ready.send_request(post(GET), false).expect("send");
            body.send_data(Bytes::from_static(&[0, 0]), false)
                .expect("send");
            unfinished.push((answer, body));
        }
    }
    server
        .get("")
        .await
        .expect("a call among unfinished requests");
    assert!(server.is_healthy().await);
    for (answer, _body) in unfinished {
        let answer = soon("an answer", answer).await.expect("an answer");
        let status = Status::from_header_map(answer.headers()).expect("a status");
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert_eq!(reason(&status), "DEADLINE_EXCEEDED");
    }
    server.stop().await;
}

#[tokio::test]
async fn large_requests_have_a_budget_and_small_ones_need_none() {
    let server = Server::start(&["--max-buffered-bytes=1048576"]).await;
    let mut client = server.raw().await;
    let half = vec![0; 600 * 1024];
    let message = framed(&[vec![0x2a, 0x80, 0x80, 0x20], vec![b'x'; 512 * 1024]].concat());
    let mut ready = client.clone().ready().await.expect("ready");
    let (_answer, mut unfinished) = ready.send_request(post(GET), false).expect("send");
    unfinished.send_data(half.into(), false).expect("send");
    let list = "/usher.notify.v1.DeliveryService/ListDeliveries";
    soon("the budget is used up", async {
        loop {
            let status = send(&mut client, list, message.clone()).await;
            if status.code() == Code::Unavailable {
                assert_eq!(reason(&status), "OVERLOADED");
                assert!(status.get_details_retry_info().is_some());
                break;
            }
            assert_eq!(status.code(), Code::Ok, "{status:?}");
        }
    })
    .await;
    server.get("").await.expect("a small call");
    // The place is free again when the request is gone.
    unfinished.send_reset(h2::Reason::CANCEL);
    soon("the budget is free", async {
        while send(&mut client, list, message.clone()).await.code() != Code::Ok {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn requests_that_are_no_messages_are_refused_and_others_served() {
    let server = Server::start(&["--max-message-bytes=65536"]).await;
    let mut client = server.raw().await;
    let nested = (0..200).fold(Vec::new(), |inner: Vec<u8>, _| {
        let mut outer = vec![0x0b];
        outer.extend(inner);
        outer.push(0x0c);
        outer
    });
    for (what, body, code) in [
        ("nothing", Vec::new(), Code::InvalidArgument),
        ("half a prefix", vec![0, 0, 0], Code::InvalidArgument),
        (
            "less than announced",
            vec![0, 0, 0, 0, 9, 1],
            Code::InvalidArgument,
        ),
        (
            "more than announced",
            [framed(&[]), vec![7]].concat(),
            Code::InvalidArgument,
        ),
        (
            "two messages",
            [framed(&[]), framed(&[])].concat(),
            Code::InvalidArgument,
        ),
        (
            "an unknown flag",
            vec![7, 0, 0, 0, 0],
            Code::InvalidArgument,
        ),
        (
            "compressed with nothing",
            vec![1, 0, 0, 0, 0],
            Code::InvalidArgument,
        ),
        ("no tag", framed(&[0xff; 20]), Code::InvalidArgument),
        (
            "a number as organization_id",
            framed(&[0x08, 1]),
            Code::InvalidArgument,
        ),
        (
            "a text beyond the end",
            framed(&[0x0a, 100, 1]),
            Code::InvalidArgument,
        ),
        (
            "a text that is not UTF-8",
            framed(&[0x0a, 1, 0xff]),
            Code::InvalidArgument,
        ),
        ("deep nesting", framed(&nested), Code::InvalidArgument),
        ("too much", framed(&vec![0; 65537]), Code::OutOfRange),
    ] {
        let status = send(&mut client, GET, body).await;
        assert_eq!(status.code(), code, "{what}: {status:?}");
        assert!(!reason(&status).is_empty());
        server.get("").await.expect("others are served");
    }
    let unknown = send(
        &mut client,
        "/usher.notify.v1.DeliveryService/Unknown",
        framed(&[]),
    )
    .await;
    assert_eq!(unknown.code(), Code::Unimplemented);
    server.stop().await;
}

#[tokio::test]
async fn a_million_repeated_fields_are_one_call() {
    let server = Server::start(&[]).await;
    let request = ListDeliveriesRequest {
        states: vec![1; 1_000_000],
        ..Default::default()
    };
    assert!(request.encoded_len() < 1024 * 1024);
    let mut client = server.client.clone();
    let answer = soon("an answer", client.list_deliveries(request))
        .await
        .expect("an answer");
    assert_eq!(answer.get_ref().next_page_token, "1000000");
    server.get("").await.expect("others are served");
    server.stop().await;
}
