//! The program `account-svc`.

use account_svc::{
    app::{Application, migrate},
    config::{Cli, Command, MigrateArgs, ServeArgs},
};
use anyhow::Context as _;
use clap::Parser as _;
use tokio::net::TcpListener;
use usher_runtime::{shutdown, telemetry};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Serve(args) => serve(*args).await,
        Command::Migrate(args) => run_migrations(args).await,
    }
}

async fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let telemetry = telemetry::init("account-svc", &args.telemetry)?;
    let stop = shutdown::on_signal()?;
    let bus = args.broker.bus("account-svc")?;
    let pool = args.pool()?;
    let grpc = listen(args.listen.grpc_listen, "GRPC_LISTEN").await?;
    let admin = listen(args.listen.admin_listen, "ADMIN_LISTEN").await?;
    let registry = telemetry.registry.clone();
    let application = Application::build(&args.account, &args.server, pool, bus)?;
    application
        .run_until_stopped(grpc, Some((admin, registry)), stop)
        .await?;
    telemetry.shutdown();
    Ok(())
}

async fn run_migrations(args: MigrateArgs) -> anyhow::Result<()> {
    let telemetry = telemetry::init("account-svc", &args.telemetry)?;
    migrate(&args.database.url()?).await?;
    telemetry.shutdown();
    Ok(())
}

async fn listen(address: std::net::SocketAddr, name: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("{name}: cannot listen on {address}; is another program there?"))
}
