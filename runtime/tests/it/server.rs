//! The layers of the server, with callers that do not behave.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use clap::Parser as _;
use h2::client::SendRequest;
use http::Request as HttpRequest;
use prost::{Message as _, bytes::Bytes};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Request, Response, Status, codegen::BoxStream, service::Routes, transport::Channel,
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, ServerReflectionResponse,
    server_reflection_client::ServerReflectionClient,
};
use tonic_types::StatusExt as _;
use usher_proto::notify::v1::{
    GetDeliveryRequest, GetDeliveryResponse, ListDeliveriesRequest, ListDeliveriesResponse,
    WatchDeliveriesRequest, WatchDeliveriesResponse,
    delivery_service_client::DeliveryServiceClient,
    delivery_service_server::{DeliveryService, DeliveryServiceServer},
};
use usher_runtime::{
    callers::Callers,
    config::{ServerArgs, TelemetryArgs},
    server, stream, telemetry,
};

use crate::support::soon;

const UNAUTHENTICATED: &str = "--allow-unauthenticated";
const CHECK: &str = "/grpc.health.v1.Health/Check";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
const GET: &str = "/usher.notify.v1.DeliveryService/GetDelivery";

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    telemetry: TelemetryArgs,
}

/// Does what the id in the request says.
#[derive(Clone, Default)]
struct Handler {
    /// Ends `wait`.
    go_on: Arc<Notify>,
    /// What happened.
    events: Arc<Mutex<Vec<&'static str>>>,
}

impl Handler {
    async fn until(&self, event: &str) {
        soon(event, async {
            while !self.events.lock().unwrap().contains(&event) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

#[tonic::async_trait]
impl DeliveryService for Handler {
    async fn get_delivery(
        &self,
        request: Request<GetDeliveryRequest>,
    ) -> Result<Response<GetDeliveryResponse>, Status> {
        match request.get_ref().delivery_id.as_str() {
            "wait" => {
                self.events.lock().unwrap().push("waiting");
                self.go_on.notified().await;
            }
            "hang" => std::future::pending().await,
            "panic" => panic!("on purpose"),
            _ => {}
        }
        Ok(Response::new(GetDeliveryResponse::default()))
    }

    async fn list_deliveries(
        &self,
        request: Request<ListDeliveriesRequest>,
    ) -> Result<Response<ListDeliveriesResponse>, Status> {
        Ok(Response::new(ListDeliveriesResponse {
            next_page_token: request.get_ref().states.len().to_string(),
            ..Default::default()
        }))
    }

    async fn watch_deliveries(
        &self,
        request: Request<WatchDeliveriesRequest>,
    ) -> Result<Response<BoxStream<WatchDeliveriesResponse>>, Status> {
        let what = request.get_ref().invitation_id.clone();
        if what == "refuse" {
            return Err(Status::unavailable("no details"));
        }
        let (events, go_on) = (Arc::clone(&self.events), Arc::clone(&self.go_on));
        let responses = stream::produce(&request, |sender| async move {
            sender.send(WatchDeliveriesResponse::default()).await?;
            match what.as_str() {
                "panic" => panic!("on purpose"),
                "fail" => return Err(Status::unavailable("no details")),
                "wait" => go_on.notified().await,
                "hang" => std::future::pending().await,
                "watch" => {
                    sender.gone().await;
                    events.lock().unwrap().push("gone");
                }
                "busy" => {
                    for _ in 0..20 {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        sender.send(WatchDeliveriesResponse::default()).await?;
                    }
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(Response::new(responses))
    }
}

struct Server {
    handler: Handler,
    address: SocketAddr,
    client: DeliveryServiceClient<Channel>,
    stop: CancellationToken,
    running: JoinHandle<anyhow::Result<()>>,
}

impl Server {
    async fn start(settings: &[&str]) -> Self {
        let handler = Handler::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let (_reporter, health) = tonic_health::server::health_reporter();
        let mut routes =
            Routes::new(DeliveryServiceServer::new(handler.clone())).add_service(health);
        server::add_reflection(&mut routes).expect("descriptors");
        let args = Cli::parse_from(["test", UNAUTHENTICATED].iter().chain(settings)).server;
        let callers = Callers::from_args(&args.callers).expect("callers");
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let running =
            tokio::spawn(
                async move { server::serve(listener, routes, callers, &args, stopped).await },
            );
        let channel = channel(address).await;
        Self {
            handler,
            address,
            client: DeliveryServiceClient::new(channel),
            stop,
            running,
        }
    }

    async fn get(&self, what: &str) -> Result<(), Status> {
        let request = GetDeliveryRequest {
            delivery_id: what.to_owned(),
            ..Default::default()
        };
        let mut client = self.client.clone();
        soon(what, client.get_delivery(request)).await.map(|_| ())
    }

    async fn watch(&self, what: &str) -> Result<tonic::Streaming<WatchDeliveriesResponse>, Status> {
        let request = WatchDeliveriesRequest {
            invitation_id: what.to_owned(),
            ..Default::default()
        };
        let mut client = self.client.clone();
        soon(what, client.watch_deliveries(request))
            .await
            .map(Response::into_inner)
    }

    async fn is_healthy(&self) -> bool {
        let mut health = HealthClient::new(channel(self.address).await);
        let check = health.check(HealthCheckRequest::default());
        soon("health", check).await.is_ok()
    }

    /// A connection of somebody who speaks HTTP/2 by hand.
    async fn raw(&self) -> SendRequest<Bytes> {
        let tcp = TcpStream::connect(self.address).await.expect("connect");
        let (client, connection) = h2::client::Builder::new()
            .initial_max_send_streams(1_000)
            .handshake(tcp)
            .await
            .expect("handshake");
        tokio::spawn(async move {
            let _ = connection.await;
        });
        client
    }

    async fn stop(self) {
        drop(self.client);
        self.stop.cancel();
        soon("the server stops", self.running)
            .await
            .expect("no panic")
            .expect("no error");
    }
}

async fn channel(address: SocketAddr) -> Channel {
    Channel::from_shared(format!("http://{address}"))
        .expect("an address")
        .connect()
        .await
        .expect("connect")
}

fn post(path: &str) -> HttpRequest<()> {
    HttpRequest::post(format!("http://test{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("a request")
}

/// Sends a body as it is; the status of the answer.
async fn send(client: &mut SendRequest<Bytes>, path: &str, body: Vec<u8>) -> Status {
    let mut ready = client.clone().ready().await.expect("ready");
    let (answer, mut stream) = ready.send_request(post(path), false).expect("send");
    // The server may answer, and reset the rest, before it has taken all.
    let _ = stream.send_data(body.into(), true);
    let answer = soon("an answer", answer).await.expect("an answer");
    if let Some(status) = Status::from_header_map(answer.headers()) {
        return status;
    }
    let mut body = answer.into_body();
    while let Some(chunk) = body.data().await {
        let length = chunk.expect("data").len();
        let _ = body.flow_control().release_capacity(length);
    }
    let trailers = body.trailers().await.expect("trailers").expect("trailers");
    Status::from_header_map(&trailers).expect("a status")
}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("short");
    [&[0], length.to_be_bytes().as_slice(), message].concat()
}

fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"))
        .reason
}

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
async fn watches_of_health_are_limited_and_end_when_the_service_stops() {
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
    assert!(server.is_healthy().await);
    server.watch("").await.expect("a stream of the contract");
    server.stop.cancel();
    for mut watch in watches {
        assert!(watch.message().await.expect("a message").is_some());
        let end = soon("the end", watch.message()).await;
        assert_eq!(reason(&end.expect_err("an error")), "OVERLOADED");
    }
    drop(health);
    server.stop().await;
}

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

#[tokio::test]
async fn neither_invented_paths_nor_callers_that_hang_up_fill_the_log() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
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
    assert!(!log.text().contains("invented"), "{}", log.text());
    server.stop().await;
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
async fn connections_are_limited() {
    let server = Server::start(&["--max-connections=2"]).await;
    let second = server.raw().await;
    let mut third = TcpStream::connect(server.address).await.expect("connect");
    let mut buffer = [0; 1];
    let read = soon("closed", third.read(&mut buffer)).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    drop(second);
    soon("a place is free", async {
        loop {
            let mut tcp = TcpStream::connect(server.address).await.expect("connect");
            let _ = tcp
                .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
                .await;
            if matches!(tcp.read(&mut buffer).await, Ok(1)) {
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

#[tokio::test]
async fn calls_are_measured_until_their_end_by_methods_of_the_contract() {
    // The meter belongs to the process, and other tests use it before it is set up: this one needs a process
    // of its own.
    const OWN_PROCESS: &str = "USHER_TEST_OWN_PROCESS";
    if std::env::var_os(OWN_PROCESS).is_none() {
        let name = "server::calls_are_measured_until_their_end_by_methods_of_the_contract";
        let status = tokio::process::Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", name])
            .env(OWN_PROCESS, "1")
            .status();
        assert!(status.await.expect("a process").success());
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
    for (method, code) in [
        ("DeliveryService/WatchDeliveries", Code::Unavailable),
        ("DeliveryService/WatchDeliveries", Code::Cancelled),
        ("\"unknown\"", Code::Unauthenticated),
        ("\"unknown\"", Code::Unimplemented),
    ] {
        let label = format!("rpc_grpc_status_code=\"{}\"", code as i32);
        soon("it is measured", async {
            loop {
                let metrics = metrics();
                assert!(!metrics.contains("invented"), "{metrics}");
                let is_count = |line: &str| {
                    line.starts_with("rpc_server_duration_seconds_count")
                        && line.contains(method)
                        && line.contains(&label)
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
