//! What is logged and measured of calls.

use std::time::Duration;

use clap::Parser as _;
use prost::bytes::Bytes;
use tonic::Code;
use usher_runtime::telemetry;

use super::harness::{Cli, GET, Log, Server, UNAUTHENTICATED, framed, is_own_process, post, send};
use crate::support::soon;

#[tokio::test]
async fn neither_invented_paths_nor_callers_that_hang_up_fill_the_log() {
    // Which lines are wanted is kept for the whole process, and other tests want none.
    let name = "server::telemetry::neither_invented_paths_nor_callers_that_hang_up_fill_the_log";
    if !is_own_process(name, "").await {
        return;
    }
    let (log, _guard) = Log::capture();
    let server = Server::start(&[]).await;
    let mut client = server.raw().await;
    let unknown = send(&mut client, "/invented/Path", framed(&[])).await;
    assert_eq!(unknown.code(), Code::Unimplemented);
    let reset = async {
        while !log.text().contains("code=Cancelled") {
            let mut ready = client.clone().ready().await.expect("ready");
            let (_answer, mut body) = ready.send_request(post(GET), false).expect("send");
            body.send_data(Bytes::from_static(&[0, 0]), false)
                .expect("send");
            tokio::time::sleep(Duration::from_millis(20)).await;
            body.send_reset(h2::Reason::INTERNAL_ERROR);
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert!(!log.text().contains("ERROR"), "{}", log.text());
        }
    };
    soon("the call has ended", reset).await;
    assert!(log.text().contains("unknown"), "{}", log.text());
    let refused = "code=Unimplemented error.reason=\"NOT_IMPLEMENTED\"";
    assert!(log.text().contains(refused), "{}", log.text());
    assert!(!log.text().contains("invented"), "{}", log.text());
    server.stop().await;
}

#[tokio::test]
async fn calls_are_measured_until_their_end_by_methods_of_the_contract() {
    // The meter belongs to the process, and other tests use it before it is set up.
    let name = "server::telemetry::calls_are_measured_until_their_end_by_methods_of_the_contract";
    if !is_own_process(name, "").await {
        return;
    }
    let args = Cli::parse_from(["test", UNAUTHENTICATED]).telemetry;
    let telemetry = telemetry::init("test", &args).expect("the only one");
    let server = Server::start(&[]).await;
    let mut failed = server.watch("fail").await.expect("a stream");
    while failed
        .message()
        .await
        .is_ok_and(|message| message.is_some())
    {}
    drop(server.watch("watch").await.expect("a stream"));
    // Paths that do not exist, of callers without an identity and with one.
    let client = server.raw().await;
    for caller in ["", "known"] {
        let mut request = post("/invented/Path");
        let value = caller.parse().expect("a value");
        request.headers_mut().insert("usher-caller", value);
        let mut ready = client.clone().ready().await.expect("ready");
        let (answer, _body) = ready.send_request(request, false).expect("send");
        soon("an answer", answer).await.expect("an answer");
    }
    let metrics = || {
        prometheus::TextEncoder::new()
            .encode_to_string(&telemetry.registry.gather())
            .expect("metrics")
    };
    for (method, code, reason) in [
        ("DeliveryService/WatchDeliveries", Code::Unavailable, None),
        ("DeliveryService/WatchDeliveries", Code::Cancelled, None),
        (
            "\"unknown\"",
            Code::Unauthenticated,
            Some("CALLER_UNAUTHENTICATED"),
        ),
        ("\"unknown\"", Code::Unimplemented, Some("NOT_IMPLEMENTED")),
    ] {
        let label = format!("rpc_grpc_status_code=\"{}\"", code as i32);
        let reason = reason.map(|reason| format!("error_reason=\"{reason}\""));
        soon("it is measured", async {
            loop {
                let metrics = metrics();
                assert!(!metrics.contains("invented"), "{metrics}");
                let is_count = |line: &str| {
                    line.starts_with("rpc_server_duration_seconds_count")
                        && line.contains(method)
                        && line.contains(&label)
                        && reason.as_ref().is_none_or(|reason| line.contains(reason))
                };
                if metrics.lines().any(is_count) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }
    server.stop().await;
}
