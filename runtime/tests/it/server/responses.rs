//! Responses that their callers do not read.

use std::time::Duration;

use prost::Message as _;
use tonic::Status;
use usher_proto::notify::v1::{GetDeliveryRequest, ListDeliveriesRequest};

use super::harness::{GET, LARGE, LIST, Server, framed, post, reason};
use crate::support::soon;

fn large() -> ListDeliveriesRequest {
    ListDeliveriesRequest {
        invitation_id: "large".to_owned(),
        ..Default::default()
    }
}

async fn get_large(server: &Server) -> Result<usize, Status> {
    let mut client = server.client.clone();
    let response = soon("an answer", client.list_deliveries(large())).await?;
    Ok(response.into_inner().next_page_token.len())
}

#[tokio::test]
async fn large_responses_that_nobody_reads_have_a_budget_and_a_limit_in_time() {
    // Room for one of them.
    let settings = ["--max-buffered-bytes=1048581", "--request-timeout=2s"];
    let server = Server::start(&settings).await;
    let client = server.raw().await;
    let mut ready = client.ready().await.expect("ready");
    let (answer, mut body) = ready.send_request(post(LIST), false).expect("send");
    body.send_data(framed(&large().encode_to_vec()).into(), true)
        .expect("send");
    let unread = soon("an answer", answer).await.expect("an answer");
    let refused = get_large(&server).await.expect_err("the budget is used up");
    assert_eq!(reason(&refused), "OVERLOADED");
    server.get("").await.expect("small calls are served");
    soon("the budget is free", async {
        while get_large(&server).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    // What is left of it never comes.
    let mut body = unread.into_body();
    let mut received = 0;
    let end = loop {
        match soon("the end", body.data()).await {
            Some(Ok(data)) => {
                received += data.len();
                let _ = body.flow_control().release_capacity(data.len());
            }
            end => break end,
        }
    };
    assert!(
        end.is_some_and(|end| end.is_err()),
        "after {received} bytes"
    );
    assert!(received < LARGE);
    server.stop().await;
}

#[tokio::test]
async fn an_error_ends_its_stream_with_the_headers() {
    let server = Server::start(&[]).await;
    let request = GetDeliveryRequest {
        delivery_id: "refuse".to_owned(),
        ..Default::default()
    };
    let client = server.raw().await;
    let mut ready = client.ready().await.expect("ready");
    let (answer, mut body) = ready.send_request(post(GET), false).expect("send");
    body.send_data(framed(&request.encode_to_vec()).into(), true)
        .expect("send");
    let answer = soon("an answer", answer).await.expect("an answer");
    assert!(answer.headers().contains_key("grpc-status"));
    // gRPC's own libraries refuse an empty DATA frame after them.
    assert!(answer.body().is_end_stream());
    server.stop().await;
}

#[tokio::test]
async fn large_responses_arrive_whole() {
    let server = Server::start(&[]).await;
    for _ in 0..3 {
        assert_eq!(get_large(&server).await.expect("a response"), LARGE);
    }
    server.stop().await;
}
