//! Connections: how many, and those that do not behave.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use tonic::Code;

use super::harness::{CHECK, GET, Log, Server, framed, is_own_process, post, send};
use crate::support::soon;

/// What HTTP/2 begins with: the preface and empty settings.
const BEGINNING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[tokio::test]
async fn a_flood_of_resets_ends_its_own_connection_alone() {
    let server = Server::start(&[]).await;
    let client = server.raw().await;
    let flood = async {
        // Ends when the server has closed the connection.
        loop {
            for _ in 0..200 {
                let Ok(mut ready) = client.clone().ready().await else {
                    return;
                };
                let Ok((_answer, mut body)) = ready.send_request(post(GET), false) else {
                    return;
                };
                body.send_reset(h2::Reason::CANCEL);
            }
            tokio::task::yield_now().await;
        }
    };
    let others = async {
        loop {
            server.get("").await.expect("others are served");
        }
    };
    tokio::select! {
        () = soon("the connection is closed", flood) => {}
        () = others => {}
    }
    server.get("").await.expect("others are served");
    server.stop().await;
}

#[tokio::test]
async fn connections_over_which_calls_were_made_stay_and_are_limited() {
    let server = Server::start(&["--max-connections=2"]).await;
    server.get("").await.expect("a call");
    let mut second = server.raw().await;
    let status = send(&mut second, GET, framed(&[])).await;
    assert_eq!(status.code(), Code::Ok);
    let mut third = TcpStream::connect(server.address).await.expect("connect");
    let read = soon("closed", third.read(&mut [0; 1])).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    drop(second);
    soon("a place is free", async {
        loop {
            let mut tcp = TcpStream::connect(server.address).await.expect("connect");
            let _ = tcp.write_all(BEGINNING).await;
            if matches!(tcp.read(&mut [0; 1]).await, Ok(1)) {
                break;
            }
        }
    })
    .await;
    server
        .get("")
        .await
        .expect("those that are open are served");
    server.stop().await;
}

#[tokio::test]
async fn connections_without_a_call_that_was_let_in_give_way() {
    let server = Server::start(&["--max-connections=8"]).await;
    let mut known = server.raw().await;
    let status = send(&mut known, GET, framed(&[])).await;
    assert_eq!(status.code(), Code::Ok);
    let mut silent = TcpStream::connect(server.address).await.expect("connect");
    let mut strangers = Vec::new();
    for _ in 0..50 {
        let mut stranger = server.raw().await;
        // Anybody may ask this, and be refused that.
        send(&mut stranger, CHECK, framed(&[])).await;
        let mut request = post(GET);
        let nobody = "".parse().expect("a value");
        request.headers_mut().insert("usher-caller", nobody);
        let (answer, _body) = stranger.send_request(request, true).expect("send");
        soon("an answer", answer).await.expect("an answer");
        strangers.push(stranger);
    }
    let mut received = Vec::new();
    let _ = soon("closed", silent.read_to_end(&mut received)).await;
    // A newcomer, and who was let in before.
    let mut newcomer = server.raw().await;
    for client in [&mut newcomer, &mut known] {
        let status = send(client, GET, framed(&[])).await;
        assert_eq!(status.code(), Code::Ok);
    }
    drop((known, newcomer, strangers));
    server.stop().await;
}

#[tokio::test]
async fn a_connection_that_does_not_begin_is_closed() {
    let server = Server::start(&[]).await;
    let mut halfway = TcpStream::connect(server.address).await.expect("connect");
    halfway.write_all(&BEGINNING[..30]).await.expect("write");
    let mut silent = TcpStream::connect(server.address).await.expect("connect");
    for tcp in [&mut silent, &mut halfway] {
        // The server's own settings, if any, and then the end.
        let mut received = Vec::new();
        let closed = tcp.read_to_end(&mut received);
        let closed = tokio::time::timeout(Duration::from_secs(20), closed).await;
        assert!(closed.is_ok(), "it is still open");
    }
    server.get("").await.expect("others are served");
    server.stop().await;
}

#[tokio::test]
async fn a_server_without_free_file_descriptors_waits_and_goes_on() {
    let name = "server::connections::a_server_without_free_file_descriptors_waits_and_goes_on";
    if !is_own_process(name, "ulimit -n 64;").await {
        return;
    }
    let (log, _guard) = Log::capture();
    let server = Server::start(&[]).await;
    server.get("").await.expect("a call");
    let mut files = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        files.push(file);
    }
    // One for the client's side of the connection.
    files.pop();
    let started = Instant::now();
    let waiting = TcpStream::connect(server.address).await.expect("connect");
    let refused = || log.text().matches("cannot be accepted").count();
    soon("it is tried again", async {
        while refused() < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // With pauses of 100 ms.
    assert!(started.elapsed() >= Duration::from_millis(300));
    server
        .get("")
        .await
        .expect("those that are open are served");
    drop((files, waiting));
    assert!(server.is_healthy().await);
    server.stop().await;
}
