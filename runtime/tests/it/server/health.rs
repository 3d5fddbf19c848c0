//! `grpc.health.v1`, which anybody may ask.

use prost::bytes::Bytes;
use tonic::Status;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::harness::{CHECK, Server, channel, framed, post, reason, send};
use crate::support::soon;

#[tokio::test]
async fn requests_for_health_are_short_in_bytes_and_in_time() {
    let server = Server::start(&[]).await;
    let mut client = server.raw().await;
    let large = send(&mut client, CHECK, framed(&[0x0a; 2_000])).await;
    assert_eq!(reason(&large), "MESSAGE_TOO_LARGE");
    for method in ["Check", "Watch"] {
        let path = format!("/grpc.health.v1.Health/{method}");
        let mut ready = client.clone().ready().await.expect("ready");
        let (answer, mut body) = ready.send_request(post(&path), false).expect("send");
        body.send_data(Bytes::from_static(&[0, 0]), false)
            .expect("send");
        let answer = soon("an answer", answer).await.expect("an answer");
        let status = Status::from_header_map(answer.headers()).expect("a status");
        assert_eq!(reason(&status), "DEADLINE_EXCEEDED", "{method}");
    }
    assert!(server.is_healthy().await);
    server.stop().await;
}

#[tokio::test]
async fn watches_of_health_are_limited_for_each_connection_and_end_when_the_service_stops() {
    let server = Server::start(&["--max-streaming-requests=1"]).await;
    let mut health = HealthClient::new(channel(server.address).await);
    let mut watches = Vec::new();
    let refused = loop {
        assert!(watches.len() < 200, "nothing limits them");
        let watch = health.watch(HealthCheckRequest::default());
        match soon("a watch", watch).await {
            Ok(watch) => watches.push(watch.into_inner()),
            Err(status) => break status,
        }
    };
    assert_eq!(reason(&refused), "OVERLOADED");
    // Nobody takes them from others.
    let mut other = HealthClient::new(channel(server.address).await);
    let watch = other.watch(HealthCheckRequest::default());
    watches.push(soon("a watch", watch).await.expect("a watch").into_inner());
    assert!(server.is_healthy().await);
    server.watch("").await.expect("a stream of the contract");
    server.stop.cancel();
    for mut watch in watches {
        assert!(watch.message().await.expect("a message").is_some());
        let end = soon("the end", watch.message()).await;
        assert_eq!(reason(&end.expect_err("an error")), "OVERLOADED");
    }
    drop((health, other));
    server.stop().await;
}
