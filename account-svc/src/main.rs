//! The program `account-svc`.

use std::process::ExitCode;

use account_svc::{
    app::{Application, migrate},
    config::{Cli, Command, MigrateArgs, ServeArgs},
    db::ROLE,
};
use usher_runtime::{config, service::Listeners, shutdown, telemetry};

#[tokio::main]
async fn main() -> ExitCode {
    config::run(async |cli: Cli| match cli.command {
        Command::Serve(args) => serve(*args).await,
        Command::Migrate(args) => run_migrations(args).await,
    })
    .await
}

async fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let telemetry = telemetry::init("account-svc", &args.telemetry)?;
    let stop = shutdown::on_signal()?;
    let pools = args.database.pools(ROLE)?;
    let listeners = Listeners::bind(&args.listen, &telemetry.registry).await?;
    let application = Application::build(&args.account, &args.server, pools)?;
    // Last: it connects in a thread of its own, which must not outlive a start that failed.
    let bus = args.broker.bus("account-svc")?;
    application.run_until_stopped(bus, listeners, stop).await?;
    telemetry.shutdown();
    Ok(())
}

async fn run_migrations(args: MigrateArgs) -> anyhow::Result<()> {
    let telemetry = telemetry::init("account-svc", &args.telemetry)?;
    migrate(&args.database.url()?).await?;
    telemetry.shutdown();
    Ok(())
}
