//! A service of its own for each test: a fresh database, an in-process bus, and a stand-in for notify-svc
//! that opens the sealed tokens.

mod reports;
mod requests;

use std::{future::Future, time::Duration};

use account_svc::{
    app::Application,
    config::{Cli, Command},
    db::{MIGRATIONS, ROLE},
};
use clap::Parser as _;
use prost::Message as _;
use secrecy::SecretString;
use sqlx::{PgConnection, PgPool};
use tokio::{net::TcpListener, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;
use tonic::{Status, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_types::pb;
use usher_proto::{
    account::v1::{
        Account, ActivateAccountRequest, ActivateAccountResponse, AuthenticateRequest,
        AuthenticateResponse, CheckDuplicatesRequest, CreateAccountRequest,
        CreateOrganizationRequest, DuplicateReport, GetAccountRequest, GetInvitationRequest,
        InspectTokenRequest, InspectTokenResponse, Invitation, InvitationState,
        ListInvitationsRequest, Organization, RevokeInvitationRequest, SendInvitationRequest,
        UpdateAccountRequest, UpdateOrganizationRequest,
        account_service_client::AccountServiceClient,
        activation_service_client::ActivationServiceClient,
        invitation_service_client::InvitationServiceClient,
        organization_service_client::OrganizationServiceClient, send_invitation_result::Outcome,
    },
    event::v1::{Event, InvitationRequested, event::Payload},
    topology::NOTIFY_INVITATIONS,
};
use usher_runtime::{
    bus::{EventBus, Subscription},
    database::Pools,
    seal::{self, PrivateKey, Sealed, TokenUse},
};
pub use usher_tests::refusal::{assert_invalid, assert_refused, refusal};
use usher_tests::{Database, ServiceName};
use uuid::Uuid;

pub use self::{
    reports::{report_of, stored_report},
    requests::{check_names, new_account, send_invitation, update_account, update_organization},
};

/// A password that no rule refuses.
pub const PASSWORD: &str = "correct horse battery staple";

/// Most connections to the database that calls have at the same time.
pub const CALL_CONNECTIONS: usize = 16;

/// How long a test waits for what should happen at once.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running account-svc.
pub struct Service {
    pub organizations: OrganizationServiceClient<Channel>,
    pub accounts: AccountServiceClient<Channel>,
    pub invitations: InvitationServiceClient<Channel>,
    pub activation: ActivationServiceClient<Channel>,
    /// As the service reaches its database.
    pub pool: PgPool,
    pub database: Database,
    pub address: std::net::SocketAddr,
    health: HealthClient<Channel>,
    bus: EventBus,
    invitations_queue: Subscription,
    key: PrivateKey,
    stop: CancellationToken,
    running: JoinHandle<anyhow::Result<()>>,
}

/// An invitation as notify-svc gets it, with its token opened.
pub struct Link {
    pub event: InvitationRequested,
    pub token: String,
}

/// A new, migrated database.
pub async fn database() -> Database {
    let database = Database::migrated(ServiceName::Account, &MIGRATIONS).await;
    database.expect("a database: `make test` starts a server")
}

impl Service {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a service with further settings.
    pub async fn start_with(settings: &[&str]) -> Self {
        let database = database().await;
        let url = database.service_url();
        Self::start_on(database, &url, settings).await
    }

    /// Starts a service on a database that it reaches at `url`.
    pub async fn start_on(database: Database, url: &str, settings: &[&str]) -> Self {
        let (key, public) = PrivateKey::generate();
        let public = public.to_base64();
        let arguments = [
            "account-svc",
            "serve",
            "--allow-unauthenticated",
            "--token-public-key",
            &public,
            "--portal-origins",
            "https://portal.acme.example",
        ]
        .into_iter()
        .chain(settings.iter().copied());
        let Command::Serve(args) = Cli::parse_from(arguments).command else {
            unreachable!("`serve` was asked for");
        };
        let calls = u32::try_from(CALL_CONNECTIONS).unwrap();
        let pools = Pools::connect(&SecretString::from(url), ROLE, calls, 8).unwrap();
        let bus = EventBus::in_process();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let application = Application::build(&args.account, &args.server, pools.clone()).unwrap();
        let stop = CancellationToken::new();
        let running =
            tokio::spawn(application.run_until_stopped(bus.clone(), listener.into(), stop.clone()));
        let channel = Channel::from_shared(format!("http://{address}"))
            .unwrap()
            .connect()
            .await
            .unwrap();
        Self {
            organizations: OrganizationServiceClient::new(channel.clone()),
            accounts: AccountServiceClient::new(channel.clone()),
            invitations: InvitationServiceClient::new(channel.clone()),
            activation: ActivationServiceClient::new(channel.clone()),
            health: HealthClient::new(channel),
            pool: pools.calls,
            database,
            address,
            invitations_queue: bus.subscribe(NOTIFY_INVITATIONS),
            bus,
            key,
            stop,
            running,
        }
    }

    /// Whether it says that calls should be sent to it.
    pub async fn is_ready(&self) -> bool {
        let request = HealthCheckRequest::default();
        let response = self.health.clone().check(request).await.unwrap();
        response.into_inner().status() == ServingStatus::Serving
    }

    /// An administrator's connection, which row-level security does not bind.
    pub async fn admin(&self) -> PgConnection {
        self.database.admin().await.unwrap()
    }

    /// Creates an organization and answers its id.
    pub async fn organization(&mut self) -> String {
        let slug = format!("o-{}", Uuid::now_v7().simple());
        let request = CreateOrganizationRequest {
            organization: Some(Organization {
                slug,
                display_name: "Acme".to_owned(),
                portal_url: "https://portal.acme.example".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let response = self
            .organizations
            .create_organization(request)
            .await
            .unwrap();
        response.into_inner().organization.unwrap().organization_id
    }

    /// Creates an account that must be accepted.
    pub async fn create(&mut self, request: CreateAccountRequest) -> Account {
        let response = self.accounts.create_account(request).await.unwrap();
        response.into_inner().account.unwrap()
    }

    /// Creates an account, also when there are accounts of similar name.
    pub async fn create_anyway(&mut self, request: CreateAccountRequest) -> Account {
        match self.accounts.create_account(request.clone()).await {
            Ok(response) => response.into_inner().account.unwrap(),
            Err(status) => {
                let acknowledged = CreateAccountRequest {
                    duplicate_acknowledgement: report(Err::<(), _>(status)).acknowledgement,
                    ..request
                };
                self.create(acknowledged).await
            }
        }
    }

    /// Checks for duplicates.
    pub async fn check(&mut self, request: CheckDuplicatesRequest) -> DuplicateReport {
        let response = self.accounts.check_duplicates(request).await.unwrap();
        response.into_inner().report.unwrap()
    }

    /// Changes an account in a way that must be accepted.
    pub async fn update(&mut self, request: UpdateAccountRequest) -> Account {
        let response = self.accounts.update_account(request).await.unwrap();
        response.into_inner().account.unwrap()
    }

    /// Changes an organization in a way that must be accepted.
    pub async fn update_organization(
        &mut self,
        request: UpdateOrganizationRequest,
    ) -> Organization {
        let response = self.organizations.update_organization(request).await;
        response.unwrap().into_inner().organization.unwrap()
    }

    /// Creates Ann Lee's account in an organization, and takes it over with [`PASSWORD`]: `ann@example.org`
    /// can log in.
    pub async fn activated(&mut self, organization_id: &str) -> Account {
        let request = new_account(organization_id, "Ann", "Lee", "ann@example.org");
        let account = self.create(request).await;
        let link = self.next_link().await;
        self.activate(&link.token, PASSWORD).await.unwrap();
        self.account(organization_id, &account.account_id).await
    }

    /// Reads an account.
    pub async fn account(&mut self, organization_id: &str, account_id: &str) -> Account {
        let request = GetAccountRequest {
            organization_id: organization_id.to_owned(),
            account_id: account_id.to_owned(),
        };
        let response = self.accounts.get_account(request).await.unwrap();
        response.into_inner().account.unwrap()
    }

    /// Sends an invitation that must be accepted.
    pub async fn invite(&mut self, account: &Account) -> Invitation {
        self.send(send_invitation(account)).await.0
    }

    /// As [`Self::invite`]; answers the invitation, and whether it was waiting already.
    pub async fn send(&self, request: SendInvitationRequest) -> (Invitation, bool) {
        let response = self.invitations.clone().send_invitation(request).await;
        let results = response.unwrap().into_inner().results;
        let [result] = &results[..] else {
            panic!("one account, one result");
        };
        match result.outcome.clone() {
            Some(Outcome::Invitation(invitation)) => (invitation, result.already_waiting),
            other => panic!("not invited: {other:?}"),
        }
    }

    /// Revokes an invitation.
    pub async fn revoke(&self, invitation: &Invitation) -> Result<Invitation, Status> {
        let request = RevokeInvitationRequest {
            organization_id: invitation.organization_id.clone(),
            invitation_id: invitation.invitation_id.clone(),
            ..Default::default()
        };
        let response = self.invitations.clone().revoke_invitation(request).await?;
        Ok(response.into_inner().invitation.unwrap())
    }

    /// The invitations of an account, newest first.
    pub async fn invitations_of(&self, account: &Account) -> Vec<Invitation> {
        let request = ListInvitationsRequest {
            organization_id: account.organization_id.clone(),
            account_id: account.account_id.clone(),
            ..Default::default()
        };
        let response = self.invitations.clone().list_invitations(request).await;
        response.unwrap().into_inner().invitations
    }

    /// Reads an invitation.
    pub async fn invitation(&mut self, organization_id: &str, invitation_id: &str) -> Invitation {
        let request = GetInvitationRequest {
            organization_id: organization_id.to_owned(),
            invitation_id: invitation_id.to_owned(),
        };
        let response = self.invitations.get_invitation(request).await.unwrap();
        response.into_inner().invitation.unwrap()
    }

    /// Waits until an invitation is in `state`.
    pub async fn invitation_in(
        &mut self,
        invitation: &Invitation,
        state: InvitationState,
    ) -> Invitation {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = self
                .invitation(&invitation.organization_id, &invitation.invitation_id)
                .await;
            if now.state() == state {
                return now;
            }
            assert!(Instant::now() < deadline, "not {state:?}: {now:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The next event for notify-svc.
    pub async fn next_event(&mut self) -> Event {
        let batch = within(self.invitations_queue.next_batch(1)).await;
        let received = batch.into_iter().next().unwrap();
        let event = Event::decode(received.message.body.as_slice()).unwrap();
        received.ack().await.unwrap();
        event
    }

    /// The next invitation that notify-svc gets.
    pub async fn next_link(&mut self) -> Link {
        loop {
            let event = self.next_event().await;
            if let Some(Payload::InvitationRequested(requested)) = event.payload {
                return self.open(&event.organization_id, requested);
            }
        }
    }

    fn open(&self, organization_id: &str, event: InvitationRequested) -> Link {
        let sealed = event.sealed_token.clone().unwrap();
        let sealed = Sealed {
            encapsulated_key: sealed.encapsulated_key,
            ciphertext: sealed.ciphertext,
        };
        let token = seal::open(
            std::slice::from_ref(&self.key),
            &sealed,
            TokenUse::of(organization_id, &event),
        )
        .unwrap();
        Link {
            token: token.to_string(),
            event,
        }
    }

    /// Follows a link, with a password.
    pub async fn activate(
        &self,
        token: &str,
        password: &str,
    ) -> Result<ActivateAccountResponse, Status> {
        let request = ActivateAccountRequest {
            token: token.to_owned(),
            password: password.to_owned(),
            ..Default::default()
        };
        let response = self.activation.clone().activate_account(request).await?;
        Ok(response.into_inner())
    }

    /// Opens a link, without using it.
    pub async fn inspect(&self, token: &str) -> Result<InspectTokenResponse, Status> {
        let request = InspectTokenRequest {
            token: token.to_owned(),
        };
        let response = self.activation.clone().inspect_token(request).await?;
        Ok(response.into_inner())
    }

    /// Logs in.
    pub async fn authenticate(
        &self,
        organization_id: &str,
        email: &str,
        password: &str,
    ) -> Result<AuthenticateResponse, Status> {
        let request = AuthenticateRequest {
            organization_id: organization_id.to_owned(),
            email: email.to_owned(),
            password: password.to_owned(),
            ..Default::default()
        };
        let response = self.activation.clone().authenticate(request).await?;
        Ok(response.into_inner())
    }

    /// Waits until calls whose callers hung up are through, and no connection is left in a transaction.
    pub async fn pool_is_clean(&self) {
        let mut admin = self.admin().await;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let busy: Vec<(String, String)> = sqlx::query_as(
                "SELECT state, query FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid()
                    AND state <> 'idle'",
            )
            .fetch_all(&mut admin)
            .await
            .unwrap();
            if busy.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "{busy:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Stops the service as SIGTERM does, and returns its database.
    pub async fn stop(self) -> Database {
        self.stop.cancel();
        within(self.running).await.unwrap().unwrap();
        self.database
    }
}

/// The report that a refusal carries.
pub fn report<T: std::fmt::Debug>(result: Result<T, Status>) -> DuplicateReport {
    let status = result.expect_err("a refusal");
    let status = pb::Status::decode(status.details()).unwrap();
    let detail = status.details.iter().find(|detail| {
        detail
            .type_url
            .ends_with("usher.account.v1.DuplicateReport")
    });
    let detail = detail.unwrap_or_else(|| panic!("no report: {status:?}"));
    DuplicateReport::decode(detail.value.as_slice()).unwrap()
}

/// Waits for a condition.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Ends a test that waits for what does not come.
pub async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("in time")
}
