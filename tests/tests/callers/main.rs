//! Every RPC of the contract, called by those who may not call it: each is refused, and no answer tells whether
//! what was asked for exists.

#![expect(clippy::expect_used, reason = "tests say what went wrong by panicking")]

mod call;
mod issuer;
mod tokens;

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use tonic::{Code, Request, transport::Channel};
use usher_proto::{
    account::v1::{
        CreateOrganizationRequest, Organization,
        organization_service_client::OrganizationServiceClient,
    },
    rpc::{RPCS, Rpc},
};
use usher_tests::{Database, Program, ServiceName, token_keys};
use uuid::Uuid;

use crate::{
    call::{Answer, call, request_about},
    issuer::{AUDIENCE, Issuer},
};

/// Longer than changed keys take to be read.
const PATIENCE: Duration = Duration::from_secs(30);

const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

#[tokio::test(flavor = "multi_thread")]
async fn every_rpc_is_closed_to_those_who_may_not_call_it() {
    let installation = Installation::start().await;
    let own = installation.organization("own").await;
    let foreign = installation.organization("foreign").await;
    let made_up = Uuid::now_v7().to_string();
    installation.rotate_keys().await;

    let mut unauthenticated: Option<Answer> = None;
    let mut skipped = Vec::new();
    for rpc in RPCS {
        let channel = installation.channel(rpc);
        let control = installation.answer_to_the_right_caller(rpc, &own).await;
        for (cause, headers) in installation.strangers(rpc, &own) {
            for organization_id in [&own, &foreign, &made_up] {
                let (body, _) = request_about(rpc, organization_id);
                let answer = call(channel, rpc.path, body, &headers).await;
                assert_eq!(answer.code, Code::Unauthenticated, "{cause}: {}", rpc.path);
                assert_eq!(answer.reason(), "CALLER_UNAUTHENTICATED", "{cause}");
                // One and the same for every cause, RPC and organization.
                let first = unauthenticated.get_or_insert_with(|| answer.clone());
                assert_eq!(*first, answer, "{cause}: {}", rpc.path);
            }
        }
        installation
            .walk_scopes(rpc, [&own, &foreign, &made_up])
            .await;
        let is_walked = installation
            .walk_organizations(rpc, &own, [&foreign, &made_up], &control)
            .await;
        if !is_walked {
            skipped.push((rpc, control.code));
        }
    }
    tokens::check_skipped(&skipped);
    installation.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_rpc_of_ours_needs_a_caller_too_but_for_health() {
    let installation = Installation::start().await;
    let known = [authorization(&installation.issuer.token("", ""))];
    for channel in [&installation.accounts, &installation.deliveries] {
        let health = call(channel, "/grpc.health.v1.Health/Check", Vec::new(), &[]).await;
        assert_eq!(health.code, Code::Ok);
        for path in [
            REFLECTION,
            "/usher.account.v1.AccountService/Nothing",
            "/x.Y/Z",
        ] {
            let answer = call(channel, path, Vec::new(), &[]).await;
            assert_eq!(answer.reason(), "CALLER_UNAUTHENTICATED", "{path}");
        }
        let reflection = call(channel, REFLECTION, Vec::new(), &known).await;
        assert_ne!(reflection.code, Code::Unauthenticated);
        assert_ne!(reflection.code, Code::PermissionDenied);
        let unknown = call(channel, "/x.Y/Z", Vec::new(), &known).await;
        assert_eq!(unknown.code, Code::Unimplemented);
    }
    installation.stop().await;
}

fn authorization(token: &str) -> (&'static str, String) {
    ("authorization", format!("Bearer {token}"))
}

/// Both services, with tokens required.
struct Installation {
    issuer: Issuer,
    programs: [Program; 2],
    accounts: Channel,
    deliveries: Channel,
    /// What opens the tokens in events.
    private_key: String,
    account_database: Database,
    _notify_database: Database,
}

impl Installation {
    async fn start() -> Self {
        let issuer = Issuer::start();
        let account_database = Database::create(ServiceName::Account).await;
        let account_database = account_database.expect("database");
        let notify_database = Database::create(ServiceName::Notify).await;
        let notify_database = notify_database.expect("database");
        let (private_key, public_key) = token_keys().await.expect("keys");
        let keys = issuer.keys();
        let common = [
            ("ALLOW_UNAUTHENTICATED", "false"),
            ("JWT_JWKS_FILE", keys.to_str().expect("UTF-8")),
            ("JWT_ISSUER", issuer::NAME),
            ("JWT_AUDIENCE", AUDIENCE),
            // Nobody is there: calls are answered without a broker.
            ("AMQP_URL", "amqp://127.0.0.1:1/%2f"),
        ];
        let account = [
            ("TOKEN_PUBLIC_KEY", public_key.as_str()),
            ("PORTAL_ORIGINS", "https://portal.example"),
        ];
        let notify = [("TOKEN_PRIVATE_KEY", private_key.as_str())];
        let programs = [
            serve(&account_database, &[&common[..], &account].concat()).await,
            serve(&notify_database, &[&common[..], &notify].concat()).await,
        ];
        Self {
            accounts: connect(&programs[0]).await,
            deliveries: connect(&programs[1]).await,
            issuer,
            programs,
            private_key,
            account_database,
            _notify_database: notify_database,
        }
    }

    fn channel(&self, rpc: &Rpc) -> &Channel {
        if rpc.service.starts_with("usher.notify.") {
            &self.deliveries
        } else {
            &self.accounts
        }
    }

    /// Creates an organization, as an operator does.
    async fn organization(&self, slug: &str) -> String {
        let mut request = Request::new(CreateOrganizationRequest {
            organization: Some(Organization {
                slug: slug.to_owned(),
                display_name: slug.to_owned(),
                portal_url: "https://portal.example".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        });
        let token = self.issuer.token("platform/organizations.write", "");
        let (name, value) = authorization(&token);
        request
            .metadata_mut()
            .insert(name, value.parse().expect("header"));
        OrganizationServiceClient::new(self.accounts.clone())
            .create_organization(request)
            .await
            .expect("organization")
            .into_inner()
            .organization
            .expect("organization")
            .organization_id
    }

    /// Rotates the old key out, and waits until both services have noticed.
    async fn rotate_keys(&self) {
        let old = [authorization(&self.issuer.old_token("", ""))];
        for channel in [&self.accounts, &self.deliveries] {
            let answer = call(channel, "/x.Y/Z", Vec::new(), &old).await;
            assert_eq!(answer.code, Code::Unimplemented, "before the rotation");
        }
        self.issuer.rotate();
        let deadline = Instant::now() + PATIENCE;
        for channel in [&self.accounts, &self.deliveries] {
            while call(channel, "/x.Y/Z", Vec::new(), &old).await.code != Code::Unauthenticated {
                assert!(Instant::now() < deadline, "the old key still opens");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// Those who did not prove who they are, and what they send. All claim what would suffice.
    fn strangers(&self, rpc: &Rpc, own: &str) -> Vec<(&'static str, Vec<(&'static str, String)>)> {
        let (issuer, scope) = (&self.issuer, rpc.scope);
        let now = jsonwebtoken::get_current_timestamp();
        let with = |name, value| issuer.token_with(name, value, scope, own);
        let tokens = [
            ("expired", with("exp", json!(now - 60))),
            ("not yet valid", with("nbf", json!(now + 60))),
            ("alg none", Issuer::unsigned(scope, own)),
            ("HS256 with the public key", issuer.confused(scope, own)),
            ("wrong audience", with("aud", json!("other"))),
            ("wrong issuer", with("iss", json!("https://other.example"))),
            ("reserved subject", with("sub", json!("person:1"))),
            ("key rotated out", issuer.old_token(scope, own)),
        ];
        let mut strangers = vec![
            ("nobody", Vec::new()),
            (
                "forged header",
                vec![("usher-caller", "staff:7".to_owned())],
            ),
        ];
        strangers.extend(tokens.map(|(cause, token)| (cause, vec![authorization(&token)])));
        strangers
    }

    /// A caller of one's own organization, or of the platform where the RPC belongs to it, gets in.
    async fn answer_to_the_right_caller(&self, rpc: &Rpc, own: &str) -> Answer {
        let organization_id = if rpc.scope.starts_with("platform/") {
            ""
        } else {
            own
        };
        let token = self.issuer.token(rpc.scope, organization_id);
        let (body, _) = request_about(rpc, own);
        let answer = call(self.channel(rpc), rpc.path, body, &[authorization(&token)]).await;
        assert!(
            ![
                "CALLER_UNAUTHENTICATED",
                "SCOPE_MISSING",
                "ORGANIZATION_MISMATCH"
            ]
            .contains(&answer.reason().as_str()),
            "{}: {answer:?}",
            rpc.path
        );
        answer
    }

    /// Another scope, and the own organization's scope where the platform's is needed.
    async fn walk_scopes(&self, rpc: &Rpc, organizations: [&String; 3]) {
        let bare = rpc.scope.strip_prefix("platform/");
        for scope in ["", "other.read platform/other.read"]
            .into_iter()
            .chain(bare)
        {
            let headers = [authorization(&self.issuer.token(scope, organizations[0]))];
            let mut answers = Vec::new();
            for organization_id in organizations {
                let (body, _) = request_about(rpc, organization_id);
                let answer = call(self.channel(rpc), rpc.path, body, &headers).await;
                assert_eq!(answer.code, Code::PermissionDenied, "{}", rpc.path);
                assert_eq!(answer.reason(), "SCOPE_MISSING", "{}", rpc.path);
                assert_eq!(answer.scope().as_deref(), Some(rpc.scope));
                answers.push(answer);
            }
            answers.dedup();
            assert_eq!(answers.len(), 1, "{}: {answers:?}", rpc.path);
        }
    }

    /// The right scope, for another organization: what is there and what is not are answered alike. False for an
    /// RPC that was skipped: it belongs to the organization of the caller and its request names none.
    async fn walk_organizations(
        &self,
        rpc: &Rpc,
        own: &str,
        others: [&String; 2],
        control: &Answer,
    ) -> bool {
        if rpc.is_of_platform() {
            // There is no other organization: `walk_scopes` has tried callers of one.
            return true;
        }
        let headers = [authorization(&self.issuer.token(rpc.scope, own))];
        let mut answers = Vec::new();
        for organization_id in others {
            let (body, names_it) = request_about(rpc, organization_id);
            if !names_it {
                return false;
            }
            let answer = call(self.channel(rpc), rpc.path, body, &headers).await;
            if control.code == Code::Unimplemented {
                assert_eq!(answer, *control, "{}", rpc.path);
            } else {
                assert_eq!(answer.code, Code::PermissionDenied, "{}", rpc.path);
                assert_eq!(answer.reason(), "ORGANIZATION_MISMATCH", "{}", rpc.path);
            }
            answers.push(answer);
        }
        answers.dedup();
        assert_eq!(answers.len(), 1, "{}: {answers:?}", rpc.path);
        true
    }

    async fn stop(self) {
        for program in self.programs {
            program.kill().await.expect("kill");
        }
    }
}

async fn connect(program: &Program) -> Channel {
    Channel::from_shared(program.grpc_url.clone())
        .expect("URL")
        .connect()
        .await
        .expect("the service is there")
}

async fn serve(database: &Database, settings: &[(&str, &str)]) -> Program {
    Program::migrate_and_serve(database, settings)
        .await
        .expect("serve")
}
