//! Calls that are refused before their request was read.

use std::{collections::BTreeSet, future::poll_fn, time::Duration};

use h2::{Reason, SendStream};
use prost::bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::{Code, Request, Status};
use usher_proto::notify::v1::GetDeliveryRequest;

use super::harness::{GET, Server, framed, post, reason};
use crate::support::soon;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A connection of somebody who sends what it has to say whatever it is answered, as a proxy does that has
/// passed on the head of a request.
struct Frames(TcpStream);

impl Frames {
    async fn open(server: &Server) -> Self {
        let mut tcp = TcpStream::connect(server.address).await.expect("connect");
        let beginning = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        tcp.write_all(beginning).await.expect("write");
        Self(tcp)
    }

    async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        let frame = [&head, payload].concat();
        self.0.write_all(&frame).await.expect("write");
    }

    /// Kind, flags and stream of the next frame.
    async fn read(&mut self) -> (u8, u8, u32) {
        let mut head = [0; 9];
        let read = soon("a frame", self.0.read_exact(&mut head)).await;
        read.expect("the connection is open");
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.0.read_exact(&mut payload).await.expect("a payload");
        assert_ne!(kind, GOAWAY, "{}", String::from_utf8_lossy(&payload));
        (kind, flags, u32::from_be_bytes(stream))
    }

    /// Opens a call that is refused because of who calls.
    async fn open_refused(&mut self, stream: u32) {
        // HPACK (RFC 7541): POST and http from the static table, the others as literals.
        let mut block = vec![0x83, 0x86];
        let mut literal = |name: &[u8], value: &str| {
            block.extend(name);
            block.push(u8::try_from(value.len()).expect("short"));
            block.extend(value.as_bytes());
        };
        literal(&[0x04], GET);
        literal(&[0x01], "test");
        literal(&[0x0f, 0x10], "application/grpc");
        literal(b"\0\x0cusher-caller", "");
        self.write(HEADERS, END_HEADERS, stream, &block).await;
    }
}

#[tokio::test]
async fn refused_calls_whose_requests_are_under_way_do_not_close_the_connection() {
    let server = Server::start(&[]).await;
    let mut client = Frames::open(&server).await;
    let streams: Vec<u32> = (0..500).map(|index| 2 * index + 1).collect();
    for batch in streams.chunks(100) {
        for stream in batch {
            client.open_refused(*stream).await;
        }
        let mut answered = BTreeSet::new();
        while answered.len() < batch.len() {
            if let (HEADERS, _, stream) = client.read().await {
                answered.insert(stream);
            }
        }
        for stream in batch {
            let message = framed(&[0; 1_000]);
            client.write(DATA, END_STREAM, *stream, &message).await;
        }
    }
    client.write(PING, 0, 0, &[7; 8]).await;
    while client.read().await.0 != PING {}
    drop(client);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refused_call_gets_its_own_status() {
    let server = Server::start(&[]).await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..500 {
        let mut client = server.client.clone();
        calls.spawn(async move {
            let mut request = Request::new(GetDeliveryRequest {
                delivery_id: "x".repeat(8 * 1024),
                ..Default::default()
            });
            let nobody = "".parse().expect("a value");
            request.metadata_mut().insert("usher-caller", nobody);
            client.get_delivery(request).await
        });
    }
    while let Some(refused) = calls.join_next().await {
        let status = refused.expect("no panic").expect_err("refused");
        assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
        assert_eq!(reason(&status), "CALLER_UNAUTHENTICATED");
    }
    server.get("").await.expect("others are served");
    server.stop().await;
}

/// Opens a call that is refused because of who calls; its request, after the answer.
async fn refused_request(server: &Server) -> SendStream<Bytes> {
    let mut request = post(GET);
    let nobody = "".parse().expect("a value");
    request.headers_mut().insert("usher-caller", nobody);
    let mut ready = server.raw().await.ready().await.expect("ready");
    let (answer, body) = ready.send_request(request, false).expect("send");
    let answer = soon("an answer", answer).await.expect("an answer");
    let status = Status::from_header_map(answer.headers()).expect("a status");
    assert_eq!(status.code(), Code::Unauthenticated);
    body
}

#[tokio::test]
async fn the_rest_of_a_refused_request_is_not_waited_for_without_end() {
    let server = Server::start(&[]).await;
    let mut unfinished = refused_request(&server).await;
    let reset = poll_fn(|context| unfinished.poll_reset(context));
    let reset = tokio::time::timeout(Duration::from_secs(15), reset).await;
    let reason = reset.expect("a limit").expect("the connection is open");
    assert_eq!(reason, Reason::NO_ERROR);
    drop(unfinished);
    server.stop().await;
}

#[tokio::test]
async fn the_rest_of_a_refused_request_is_not_received_without_end() {
    const WINDOW: usize = 1024 * 1024;
    let server = Server::start(&["--max-message-bytes=65536"]).await;
    let mut endless = refused_request(&server).await;
    let mut sent = 0;
    loop {
        endless.reserve_capacity(16 * 1024);
        let capacity = poll_fn(|context| endless.poll_capacity(context));
        // Also none once the stream was reset.
        let Some(Ok(capacity)) = soon("room or a reset", capacity).await else {
            break;
        };
        if endless.send_data(vec![0; capacity].into(), false).is_err() {
            break;
        }
        sent += capacity;
        assert!(sent <= 2 * WINDOW, "nothing limits it");
    }
    drop(endless);
    server.stop().await;
}
