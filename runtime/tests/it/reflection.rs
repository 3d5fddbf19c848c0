//! What a server says about itself, and about methods that it does not serve.

use std::collections::BTreeSet;

use clap::Parser as _;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, service::Routes, transport::Channel};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};
use usher_proto::{
    account::v1::{CreateGroupRequest, group_service_client::GroupServiceClient},
    notify::v1::{GetDeliveryRequest, delivery_service_client::DeliveryServiceClient},
    rpc::RPCS,
};
use usher_runtime::{callers::Callers, config::ServerArgs, server};

#[derive(clap::Parser)]
struct Settings {
    #[command(flatten)]
    server: ServerArgs,
}

/// A server that serves health and reflection as account-svc.
struct Server {
    channel: Channel,
    stop: CancellationToken,
    running: JoinHandle<anyhow::Result<()>>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_reporter, health) = tonic_health::server::health_reporter();
        let mut routes = Routes::new(health);
        server::add_reflection(&mut routes, "account-svc").unwrap();
        let args = Settings::parse_from(["test", "--allow-unauthenticated"]).server;
        let callers = Callers::from_args(&args.callers).unwrap();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let running =
            tokio::spawn(
                async move { server::serve(listener, routes, callers, &args, stopped).await },
            );
        let channel = Channel::from_shared(format!("http://{address}")).unwrap();
        Self {
            channel: channel.connect().await.unwrap(),
            stop,
            running,
        }
    }

    async fn reflect(&self, request: MessageRequest) -> Result<MessageResponse, Status> {
        let request = ServerReflectionRequest {
            message_request: Some(request),
            ..Default::default()
        };
        let mut client = ServerReflectionClient::new(self.channel.clone());
        let requests = tokio_stream::once(request);
        let responses = client.server_reflection_info(requests).await?;
        let response = responses.into_inner().message().await?.unwrap();
        Ok(response.message_response.unwrap())
    }

    async fn stop(self) {
        self.stop.cancel();
        drop(self.channel);
        self.running.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn the_services_of_the_program_are_listed_and_every_message_is_described() {
    let server = Server::start().await;
    let listed = server.reflect(MessageRequest::ListServices(String::new()));
    let Ok(MessageResponse::ListServicesResponse(listed)) = listed.await else {
        panic!("no list");
    };
    let listed: Vec<String> = listed.service.into_iter().map(|entry| entry.name).collect();
    let expected: BTreeSet<String> = RPCS
        .iter()
        .map(|rpc| rpc.service)
        .filter(|service| service.starts_with("usher.account.v1."))
        .chain([
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
        ])
        .map(str::to_owned)
        .collect();
    assert_eq!(listed.len(), expected.len(), "{listed:?}");
    assert_eq!(BTreeSet::from_iter(listed), expected);
    // Clients look up every service that is listed.
    for symbol in expected.iter().map(String::as_str).chain([
        "usher.account.v1.DuplicateReport",
        "usher.event.v1.Event",
        "usher.notify.v1.Delivery",
        "google.rpc.ErrorInfo",
    ]) {
        let request = MessageRequest::FileContainingSymbol(symbol.to_owned());
        let described = server.reflect(request).await;
        assert!(
            matches!(described, Ok(MessageResponse::FileDescriptorResponse(_))),
            "{symbol}: {described:?}"
        );
    }
    let unknown = MessageRequest::FileContainingSymbol("x.Y".to_owned());
    let unknown = server.reflect(unknown).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    server.stop().await;
}

#[tokio::test]
async fn a_method_that_is_not_served_says_where_it_is() {
    let server = Server::start().await;
    let mut deliveries = DeliveryServiceClient::new(server.channel.clone());
    let elsewhere = deliveries.get_delivery(GetDeliveryRequest::default()).await;
    let mut groups = GroupServiceClient::new(server.channel.clone());
    let later = groups.create_group(CreateGroupRequest::default()).await;
    for (status, expected) in [
        (
            elsewhere.unwrap_err(),
            "/usher.notify.v1.DeliveryService/GetDelivery is served by notify-svc; this is account-svc",
        ),
        (
            later.unwrap_err(),
            "/usher.account.v1.GroupService/CreateGroup is not served by this version",
        ),
    ] {
        assert_eq!(status.code(), Code::Unimplemented);
        assert!(status.message().starts_with(expected), "{status:?}");
    }
    drop((deliveries, groups));
    server.stop().await;
}
