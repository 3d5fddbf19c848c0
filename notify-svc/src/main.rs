//! The program `notify-svc`.

use std::process::ExitCode;

use notify_svc::{
    app::{Application, migrate},
    config::{Cli, Command, MigrateArgs, ServeArgs},
    db::ROLE,
};
use usher_runtime::{config, seal::PrivateKey, service::Listeners, shutdown, telemetry};

#[tokio::main]
async fn main() -> ExitCode {
    config::run(async |cli: Cli| match cli.command {
        Command::Serve(args) => serve(*args).await,
        Command::Migrate(args) => run_migrations(args).await,
        Command::GenerateKey => generate_key(),
    })
    .await
}

async fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let telemetry = telemetry::init("notify-svc", &args.telemetry)?;
    let stop = shutdown::on_signal()?;
    let transport = args.notify.smtp.transport()?;
    let pools = args.database.pools(ROLE)?;
    let listeners = Listeners::bind(&args.listen, &telemetry.registry).await?;
    let application = Application::build(&args.notify, &args.server, pools, transport)?;
    // Last: it connects in a thread of its own, which must not outlive a start that failed.
    let bus = args.broker.bus("notify-svc")?;
    application.run_until_stopped(bus, listeners, stop).await?;
    telemetry.shutdown();
    Ok(())
}

async fn run_migrations(args: MigrateArgs) -> anyhow::Result<()> {
    let telemetry = telemetry::init("notify-svc", &args.telemetry)?;
    migrate(&args.database.url()?).await?;
    telemetry.shutdown();
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the keys are what the command is for")]
fn generate_key() -> anyhow::Result<()> {
    let (private, public) = PrivateKey::generate()?;
    println!(
        "# of notify-svc, secret:\nTOKEN_PRIVATE_KEY={}",
        private.to_base64().as_str()
    );
    println!("# of account-svc:\nTOKEN_PUBLIC_KEY={}", public.to_base64());
    Ok(())
}
