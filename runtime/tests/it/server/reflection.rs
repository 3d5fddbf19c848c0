//! Reflection.

use prost::bytes::Bytes;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, ServerReflectionResponse,
    server_reflection_client::ServerReflectionClient,
};

use super::harness::{REFLECTION, Server, channel, post, reason};
use crate::support::soon;

#[tokio::test]
async fn reflection_takes_small_requests_only() {
    let server = Server::start(&[]).await;
    let client = server.raw().await;
    let mut ready = client.ready().await.expect("ready");
    let (answer, mut body) = ready.send_request(post(REFLECTION), false).expect("send");
    // It announces 64 KiB, which never come.
    body.send_data(Bytes::from_static(&[0, 0, 1, 0, 0]), false)
        .expect("send");
    let answer = soon("an answer", answer).await.expect("an answer");
    let mut answer = answer.into_body();
    assert!(soon("the end", answer.data()).await.is_none());
    server.stop().await;
}

#[tokio::test]
async fn calls_of_reflection_are_limited_and_end_when_they_are_idle() {
    let server = Server::start(&["--stream-idle-timeout=2s"]).await;
    let mut client = ServerReflectionClient::new(channel(server.address).await);
    let mut calls: Vec<tonic::Streaming<ServerReflectionResponse>> = Vec::new();
    let refused = loop {
        assert!(calls.len() < 200, "nothing limits them");
        let requests = tokio_stream::pending::<ServerReflectionRequest>();
        match soon("a call", client.server_reflection_info(requests)).await {
            Ok(call) => calls.push(call.into_inner()),
            Err(status) => break status,
        }
    };
    assert_eq!(reason(&refused), "OVERLOADED");
    server.get("").await.expect("a call of the contract");
    for mut call in calls {
        let end = soon("the end", call.message()).await;
        // Which of the two directions ends first is open.
        match end {
            Ok(message) => assert!(message.is_none()),
            Err(status) => assert_eq!(reason(&status), "DEADLINE_EXCEEDED"),
        }
    }
    drop(client);
    server.stop().await;
}
