//! From nothing to a running Usher, and back.

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;
use usher_proto::account::v1::activation_service_client::ActivationServiceClient;
use usher_runtime::config::{LogFormat, TelemetryArgs};
use usher_runtime::{shutdown, telemetry};

use crate::config::Args;
use crate::console;
use crate::data_dir::DataDir;
use crate::databases::{self, Server};
use crate::demo;
use crate::listeners::{Addresses, Listeners};
use crate::postgres::Postgres;
use crate::postgres::programs::Programs;
use crate::services::{Services, Surroundings};
use crate::web::Web;

/// Runs everything until a signal comes or a part of it fails.
///
/// # Errors
///
/// If something cannot be started, or ends by itself.
pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    let stop = shutdown::on_signal()?;
    let telemetry = telemetry::init(
        "usher-local",
        &TelemetryArgs {
            log_format: LogFormat::Pretty,
            log_filter: args.log_filter.clone(),
            otlp_endpoint: None,
        },
    )?;
    let result = run_with_data(args, &stop).await;
    telemetry.shutdown();
    result
}

async fn run_with_data(args: &Args, stop: &CancellationToken) -> anyhow::Result<()> {
    console::line("Starting Usher");
    let listeners = Listeners::bind(args).await?;
    let data_dir = DataDir::open(args.data_dir.as_deref())?;
    let mut postgres = tokio::select! {
        postgres = private_postgres(args, &data_dir) => postgres?,
        () = stop.cancelled() => return Ok(()),
    };
    let server = match (&args.database_url, &postgres) {
        (Some(url), _) => Server::Named(url.clone()),
        (None, Some(postgres)) => Server::Private(postgres.url()?),
        (None, None) => anyhow::bail!("no PostgreSQL server"),
    };
    // Whatever ends the services, the database outlives them.
    let result = tokio::select! {
        result = serve(args, stop, &data_dir, &server, listeners) => result,
        error = ended(&mut postgres) => Err(error),
    };
    if let Some(postgres) = postgres {
        console::step("Stopping PostgreSQL");
        postgres.stop().await;
    }
    if result.is_ok() {
        console::line("Stopped.");
    }
    result
}

/// A PostgreSQL of our own, unless another one is to be used.
async fn private_postgres(args: &Args, data_dir: &DataDir) -> anyhow::Result<Option<Postgres>> {
    if args.database_url.is_some() {
        console::step("Using the PostgreSQL server of DATABASE_URL");
        return Ok(None);
    }
    let programs = Programs::find(args.postgres_bin.as_deref(), data_dir.path()).await?;
    console::step(&format!(
        "Starting PostgreSQL ({})",
        programs.postgres.display()
    ));
    let postgres = Postgres::start(&programs, data_dir.path(), data_dir.run_dir()).await?;
    Ok(Some(postgres))
}

/// Waits for the end of the private server, forever if there is none.
async fn ended(postgres: &mut Option<Postgres>) -> anyhow::Error {
    match postgres {
        Some(postgres) => postgres.ended().await,
        None => std::future::pending().await,
    }
}

/// Both services and the web page, until `stop`.
async fn serve(
    args: &Args,
    stop: &CancellationToken,
    data_dir: &DataDir,
    server: &Server,
    listeners: Listeners,
) -> anyhow::Result<()> {
    let addresses = listeners.addresses()?;
    let Listeners {
        account,
        notify,
        web,
    } = listeners;
    let prepared = tokio::select! {
        prepared = prepare(args, data_dir, server, account, notify, &addresses) => prepared?,
        () = stop.cancelled() => return Ok(()),
    };
    let Prepared {
        mut services,
        pages,
        organization_id,
    } = prepared;
    let mut web = tokio::spawn(axum::serve(web, pages.router()).into_future());
    demo::print_commands(&organization_id, &addresses, services.inbox.is_some());

    tokio::select! {
        () = stop.cancelled() => console::line("\nStopping"),
        error = services.ended() => return Err(error),
        result = &mut web => return Ok(result??),
    }
    // Nothing is lost with a page that is not shown.
    web.abort();
    services.stop().await
}

/// What runs when everything is ready.
struct Prepared {
    services: Services,
    pages: Web,
    organization_id: String,
}

async fn prepare(
    args: &Args,
    data_dir: &DataDir,
    server: &Server,
    account: TcpListener,
    notify: TcpListener,
    addresses: &Addresses,
) -> anyhow::Result<Prepared> {
    console::step("Preparing the databases");
    let surroundings = Surroundings {
        account_database: server.open(databases::ACCOUNT).await?,
        notify_database: server.open(databases::NOTIFY).await?,
        portal_url: addresses.portal_url.clone(),
        token_key: data_dir.token_key()?,
        amqp_url: args.amqp_url.clone(),
        smtp_url: args.smtp_url.clone(),
    };
    surroundings.migrate().await?;

    console::step("Starting account-svc and notify-svc");
    let services = Services::start(&surroundings, account, notify)?;
    let channel = Endpoint::from_shared(format!("http://{}", addresses.account))?
        .connect()
        .await
        .context("account-svc does not answer")?;
    let organization_id = demo::organization(channel.clone(), &addresses.portal_url).await?;
    let activation = ActivationServiceClient::new(channel);
    let pages = Web::new(services.inbox.clone(), activation, organization_id.clone())?;
    Ok(Prepared {
        services,
        pages,
        organization_id,
    })
}
