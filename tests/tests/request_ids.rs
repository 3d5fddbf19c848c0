//! Every mutation of the contract that is served, called with a request id that was used for another request.

#![expect(clippy::expect_used, reason = "tests say what went wrong by panicking")]

use std::collections::BTreeSet;

use account_svc::domain::token;
use prost::Message;
use prost_reflect::DescriptorPool;
use prost_types::FieldMask;
use secrecy::ExposeSecret as _;
use sqlx::PgConnection;
use tonic::{
    Code, Request, Status, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel,
};
use usher_proto::{
    account::v1::{
        Account, ActivateAccountRequest, CloseAccountRequest, CreateAccountRequest,
        CreateOrganizationRequest, Organization, ReopenAccountRequest, RevokeInvitationRequest,
        SendInvitationRequest, UpdateAccountRequest, UpdateOrganizationRequest,
        account_service_client::AccountServiceClient,
        organization_service_client::OrganizationServiceClient, send_invitation_request::Target,
    },
    notify::v1::{CancelDeliveryRequest, RetryDeliveryRequest},
    rpc::{RPCS, Rpc, RpcRequest},
};
use usher_tests::{Database, Program, ServiceName, refusal::assert_refused, token_keys};
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread")]
async fn a_reused_request_id_is_refused_by_every_mutation() {
    let mut installation = Installation::start().await;
    let organization_id = installation.organization().await;
    let token = installation.token(&organization_id).await;
    let request_id = installation.used_request_id(&organization_id).await;
    installation
        .walk(&organization_id, &token, &request_id)
        .await;
    for rpc in RPCS.iter().filter(|rpc| is_mutation(rpc)) {
        if !installation.refused.contains(rpc.path) {
            let status = call(installation.channel(rpc.path), rpc.path, ()).await;
            let code = status.expect_err("refused").code();
            assert_eq!(
                code,
                Code::Unimplemented,
                "{} is served: call it in this test, with a request that is in order",
                rpc.path
            );
        }
    }
    installation.stop().await;
}

/// Whether the contract gives the RPC a request id.
fn is_mutation(rpc: &Rpc) -> bool {
    let contract = DescriptorPool::decode(usher_proto::FILE_DESCRIPTOR_SET).expect("the contract");
    let service = contract.get_service_by_name(rpc.service).expect("service");
    let mut methods = service.methods();
    let method = methods.find(|method| rpc.path.ends_with(&format!("/{}", method.name())));
    let request = method.expect("method").input();
    !rpc.is_streaming() && request.get_field_by_name("request_id").is_some()
}

/// Sends a request; the response is not looked at.
async fn call<M: Message + 'static>(
    channel: &Channel,
    path: &'static str,
    request: M,
) -> Result<(), Status> {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.expect("the service is there");
    let codec = tonic_prost::ProstCodec::<M, ()>::default();
    let path = PathAndQuery::from_static(path);
    client.unary(Request::new(request), path, codec).await?;
    Ok(())
}

/// Both services.
struct Installation {
    programs: [Program; 2],
    databases: [Database; 2],
    accounts: Channel,
    deliveries: Channel,
    /// Paths of the RPCs that refused the request id.
    refused: BTreeSet<&'static str>,
}

impl Installation {
    async fn start() -> Self {
        let account = Database::create(ServiceName::Account).await;
        let account = account.expect("database");
        let notify = Database::create(ServiceName::Notify).await;
        let notify = notify.expect("database");
        let (private_key, public_key) = token_keys().await.expect("keys");
        // Nobody is there: calls are answered without a broker.
        let broker = ("AMQP_URL", "amqp://127.0.0.1:1/%2f");
        let account_settings = [broker, ("TOKEN_PUBLIC_KEY", public_key.as_str())];
        let notify_settings = [broker, ("TOKEN_PRIVATE_KEY", private_key.as_str())];
        let programs = [
            Program::migrate_and_serve(&account, &account_settings).await,
            Program::migrate_and_serve(&notify, &notify_settings).await,
        ]
        .map(|program| program.expect("serve"));
        let channel = async |program: &Program| {
            let endpoint = Channel::from_shared(program.grpc_url.clone()).expect("URL");
            endpoint.connect().await.expect("the service is there")
        };
        Self {
            accounts: channel(&programs[0]).await,
            deliveries: channel(&programs[1]).await,
            programs,
            databases: [account, notify],
            refused: BTreeSet::new(),
        }
    }

    fn channel(&self, path: &str) -> &Channel {
        if path.starts_with("/usher.notify.") {
            &self.deliveries
        } else {
            &self.accounts
        }
    }

    async fn admin(&self) -> PgConnection {
        self.databases[0].admin().await.expect("connection")
    }

    async fn organization(&self) -> String {
        OrganizationServiceClient::new(self.accounts.clone())
            .create_organization(CreateOrganizationRequest {
                organization: Some(new_organization("first")),
                ..Default::default()
            })
            .await
            .expect("organization")
            .into_inner()
            .organization
            .expect("organization")
            .organization_id
    }

    /// The token of an invitation: one is put in the place of the token that only notify-svc can open.
    async fn token(&self, organization_id: &str) -> String {
        let (token, hash) = token::generate().expect("randomness");
        AccountServiceClient::new(self.accounts.clone())
            .create_account(CreateAccountRequest {
                organization_id: organization_id.to_owned(),
                account: Some(new_account("first@example.org")),
                ..Default::default()
            })
            .await
            .expect("account");
        sqlx::query("UPDATE tokens SET token_hash = $1")
            .bind(&hash.0[..])
            .execute(&mut self.admin().await)
            .await
            .expect("token");
        token.expose_secret().to_owned()
    }

    /// A request id that was used for another request, of the organization and of the platform, in both services.
    async fn used_request_id(&self, organization_id: &str) -> String {
        let request_id = Uuid::now_v7();
        for database in &self.databases {
            sqlx::query(
                "INSERT INTO stored_responses (organization_id, request_id, request_hash, response)
                SELECT organization_id, $2, 'another request', '' FROM unnest($1::uuid[]) AS organization_id",
            )
            .bind([Uuid::nil(), organization_id.parse().expect("UUID")])
            .bind(request_id)
            .execute(&mut database.admin().await.expect("connection"))
            .await
            .expect("stored");
        }
        request_id.to_string()
    }

    async fn assert_refused<R: RpcRequest + 'static>(&mut self, request: R) {
        let result = call(self.channel(R::PATH), R::PATH, request).await;
        assert!(result.is_err(), "{} takes a used request id", R::PATH);
        assert_refused(result, Code::AlreadyExists, "REQUEST_ID_REUSED", &[]);
        self.refused.insert(R::PATH);
    }

    /// One request for each mutation that is served. What it is about does not have to exist.
    async fn walk(&mut self, organization_id: &str, token: &str, request_id: &str) {
        let organization_id = organization_id.to_owned();
        let request_id = request_id.to_owned();
        let id = Uuid::now_v7().to_string();
        self.assert_refused(CreateOrganizationRequest {
            organization: Some(new_organization("second")),
            request_id: request_id.clone(),
        })
        .await;
        self.assert_refused(UpdateOrganizationRequest {
            organization: Some(Organization {
                organization_id: organization_id.clone(),
                ..new_organization("first")
            }),
            update_mask: Some(mask("display_name")),
            request_id: request_id.clone(),
        })
        .await;
        self.assert_refused(CreateAccountRequest {
            organization_id: organization_id.clone(),
            account: Some(new_account("second@example.org")),
            request_id: request_id.clone(),
            ..Default::default()
        })
        .await;
        self.assert_refused(UpdateAccountRequest {
            organization_id: organization_id.clone(),
            account: Some(Account {
                account_id: id.clone(),
                ..new_account("second@example.org")
            }),
            update_mask: Some(mask("given_name")),
            request_id: request_id.clone(),
            ..Default::default()
        })
        .await;
        self.assert_refused(CloseAccountRequest {
            organization_id: organization_id.clone(),
            account_id: id.clone(),
            request_id: request_id.clone(),
            ..Default::default()
        })
        .await;
        self.assert_refused(ReopenAccountRequest {
            organization_id: organization_id.clone(),
            account_id: id.clone(),
            request_id: request_id.clone(),
        })
        .await;
        self.assert_refused(SendInvitationRequest {
            organization_id: organization_id.clone(),
            target: Some(Target::AccountId(id.clone())),
            request_id: request_id.clone(),
            ..Default::default()
        })
        .await;
        self.assert_refused(RevokeInvitationRequest {
            organization_id: organization_id.clone(),
            invitation_id: id.clone(),
            request_id: request_id.clone(),
        })
        .await;
        self.assert_refused(ActivateAccountRequest {
            token: token.to_owned(),
            password: "correct horse battery staple".to_owned(),
            request_id: request_id.clone(),
            ..Default::default()
        })
        .await;
        self.assert_refused(CancelDeliveryRequest {
            organization_id: organization_id.clone(),
            delivery_id: id.clone(),
            request_id: request_id.clone(),
        })
        .await;
        self.assert_refused(RetryDeliveryRequest {
            organization_id,
            delivery_id: id,
            request_id,
        })
        .await;
    }

    async fn stop(self) {
        for program in self.programs {
            program.kill().await.expect("kill");
        }
    }
}

fn new_organization(slug: &str) -> Organization {
    Organization {
        slug: slug.to_owned(),
        display_name: slug.to_owned(),
        portal_url: "https://portal.example".to_owned(),
        ..Default::default()
    }
}

fn new_account(email: &str) -> Account {
    Account {
        given_name: "Ann".to_owned(),
        family_name: "Lee".to_owned(),
        email: Some(email.to_owned()),
        ..Default::default()
    }
}

fn mask(path: &str) -> FieldMask {
    FieldMask {
        paths: vec![path.to_owned()],
    }
}
