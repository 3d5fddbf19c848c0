//! A server to be tested, with handlers that do what they are told, and callers that do not behave.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use clap::Parser as _;
use h2::client::SendRequest;
use http::Request as HttpRequest;
use prost::bytes::Bytes;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, codegen::BoxStream, service::Routes, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_types::StatusExt as _;
use usher_proto::notify::v1::{
    Delivery, GetDeliveryRequest, GetDeliveryResponse, ListDeliveriesRequest,
    ListDeliveriesResponse, WatchDeliveriesRequest, WatchDeliveriesResponse,
    delivery_service_client::DeliveryServiceClient,
    delivery_service_server::{DeliveryService, DeliveryServiceServer},
};
use usher_runtime::{
    call::Call,
    callers::Callers,
    config::{ServerArgs, TelemetryArgs},
    server,
};

use crate::support::soon;

pub const UNAUTHENTICATED: &str = "--allow-unauthenticated";
pub const CHECK: &str = "/grpc.health.v1.Health/Check";
pub const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
pub const LIST: &str = "/usher.notify.v1.DeliveryService/ListDeliveries";
pub const WATCH: &str = "/usher.notify.v1.DeliveryService/WatchDeliveries";
pub const GET: &str = "/usher.notify.v1.DeliveryService/GetDelivery";

/// Bytes of a large response.
pub const LARGE: usize = 700_000;

#[derive(clap::Parser)]
pub struct Cli {
    #[command(flatten)]
    pub server: ServerArgs,
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// Does what the id in the request says.
#[derive(Clone, Default)]
pub struct Handler {
    /// Ends `wait`.
    pub go_on: Arc<Notify>,
    /// What happened.
    pub events: Arc<Mutex<Vec<&'static str>>>,
}

impl Handler {
    pub async fn until(&self, event: &str) {
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
            "refuse" => return Err(Status::not_found("no details")),
            _ => {}
        }
        Ok(Response::new(GetDeliveryResponse::default()))
    }

    async fn list_deliveries(
        &self,
        request: Request<ListDeliveriesRequest>,
    ) -> Result<Response<ListDeliveriesResponse>, Status> {
        let next_page_token = match request.get_ref().invitation_id.as_str() {
            "large" => "x".repeat(LARGE),
            _ => request.get_ref().states.len().to_string(),
        };
        Ok(Response::new(ListDeliveriesResponse {
            next_page_token,
            ..Default::default()
        }))
    }

    async fn watch_deliveries(
        &self,
        request: Request<WatchDeliveriesRequest>,
    ) -> Result<Response<BoxStream<WatchDeliveriesResponse>>, Status> {
        let (call, _, request) = Call::open(request)?;
        let what = request.invitation_id;
        if what == "refuse" {
            return Err(Status::unavailable("no details"));
        }
        let (events, go_on) = (Arc::clone(&self.events), Arc::clone(&self.go_on));
        let responses = call.produce(|sender| async move {
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
                "flood" => {
                    let response = WatchDeliveriesResponse {
                        delivery: Some(Delivery {
                            reason: "x".repeat(10_000),
                            ..Default::default()
                        }),
                    };
                    while sender.send(response.clone()).await.is_ok() {}
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

pub struct Server {
    pub handler: Handler,
    pub address: SocketAddr,
    pub client: DeliveryServiceClient<Channel>,
    pub stop: CancellationToken,
    pub running: JoinHandle<anyhow::Result<()>>,
}

impl Server {
    pub async fn start(settings: &[&str]) -> Self {
        let handler = Handler::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let (_reporter, health) = tonic_health::server::health_reporter();
        let mut routes =
            Routes::new(DeliveryServiceServer::new(handler.clone())).add_service(health);
        server::add_reflection(&mut routes, "notify-svc").expect("descriptors");
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

    pub async fn get(&self, what: &str) -> Result<(), Status> {
        let request = GetDeliveryRequest {
            delivery_id: what.to_owned(),
            ..Default::default()
        };
        let mut client = self.client.clone();
        soon(what, client.get_delivery(request)).await.map(|_| ())
    }

    pub async fn watch(
        &self,
        what: &str,
    ) -> Result<tonic::Streaming<WatchDeliveriesResponse>, Status> {
        let request = WatchDeliveriesRequest {
            invitation_id: what.to_owned(),
            ..Default::default()
        };
        let mut client = self.client.clone();
        soon(what, client.watch_deliveries(request))
            .await
            .map(Response::into_inner)
    }

    pub async fn is_healthy(&self) -> bool {
        let mut health = HealthClient::new(channel(self.address).await);
        let check = health.check(HealthCheckRequest::default());
        soon("health", check).await.is_ok()
    }

    /// A connection of somebody who speaks HTTP/2 by hand.
    pub async fn raw(&self) -> SendRequest<Bytes> {
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

    pub async fn stop(self) {
        drop(self.client);
        self.stop.cancel();
        soon("the server stops", self.running)
            .await
            .expect("no panic")
            .expect("no error");
    }
}

pub async fn channel(address: SocketAddr) -> Channel {
    Channel::from_shared(format!("http://{address}"))
        .expect("an address")
        .connect()
        .await
        .expect("connect")
}

pub fn post(path: &str) -> HttpRequest<()> {
    HttpRequest::post(format!("http://test{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("a request")
}

/// Sends a body as it is; the status of the answer.
pub async fn send(client: &mut SendRequest<Bytes>, path: &str, body: Vec<u8>) -> Status {
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
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Captures what this thread logs for as long as the guard is held.
    pub fn capture() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    pub fn text(&self) -> String {
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

/// Whether this process runs the one test `name` alone; if not, runs it in a process of its own, which a shell
/// starts after `setup`.
pub async fn is_own_process(name: &str, setup: &str) -> bool {
    const OWN_PROCESS: &str = "USHER_TEST_OWN_PROCESS";
    if std::env::var_os(OWN_PROCESS).is_some() {
        return true;
    }
    let script = format!("{setup} exec \"$0\" --exact {name}");
    let status = tokio::process::Command::new("sh")
        .args(["-c", &script])
        .arg(std::env::current_exe().expect("this program"))
        .env(OWN_PROCESS, "1")
        .status();
    assert!(status.await.expect("a process").success());
    false
}

pub fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("short");
    [&[0], length.to_be_bytes().as_slice(), message].concat()
}

pub fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"))
        .reason
}
