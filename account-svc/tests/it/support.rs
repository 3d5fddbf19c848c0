//! A service of its own for each test: a fresh database, an in-process bus, and a stand-in for notify-svc
//! that opens the sealed tokens.

mod calls;
mod duplicates;
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
use tonic::transport::Channel;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use usher_proto::{
    account::v1::{
        account_service_client::AccountServiceClient,
        activation_service_client::ActivationServiceClient,
        invitation_service_client::InvitationServiceClient,
        organization_service_client::OrganizationServiceClient,
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

pub use self::{
    calls::report,
    duplicates::BIRTH_DATE,
    reports::{before_expiry, report_of, stored_report},
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
        let (key, public) = PrivateKey::generate().unwrap();
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
