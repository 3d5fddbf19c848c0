//! Settings, each a flag and an environment variable; secrets also as the name of a file.

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use usher_runtime::{
    config::{BrokerArgs, DatabaseArgs, ListenArgs, ServerArgs, TelemetryArgs},
    seal::PublicKey,
};

use crate::{
    context::Rules,
    domain::{link::LinkRules, password::PasswordPolicy, portal::PortalOrigins},
};

/// Keeps accounts, checks for duplicates and invites clients
#[derive(Debug, Parser)]
#[command(name = "account-svc", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serves the gRPC API and publishes events until a signal
    Serve(Box<ServeArgs>),
    /// Brings the database up to date and ends
    Migrate(MigrateArgs),
}

/// Settings of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Where the service listens.
    #[command(flatten)]
    pub listen: ListenArgs,
    /// Its database.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// Its broker.
    #[command(flatten)]
    pub broker: BrokerArgs,
    /// Its gRPC server.
    #[command(flatten)]
    pub server: ServerArgs,
    /// Its rules.
    #[command(flatten)]
    pub account: AccountArgs,
    /// Its logs, traces and metrics.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// Settings of `migrate`.
#[derive(Debug, Args)]
pub struct MigrateArgs {
    /// The database.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// The command's logs, traces and metrics.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// Tokens and passwords.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Accounts")]
pub struct AccountArgs {
    /// Key that tokens are sealed to, the public half of `notify-svc generate-key`
    #[arg(long, env = "TOKEN_PUBLIC_KEY")]
    pub token_public_key: String,

    /// Least number of characters of a password, 8 to 64
    #[arg(long, env = "PASSWORD_MIN_LENGTH", default_value_t = 15, value_parser = clap::value_parser!(u8).range(8..=64))]
    pub password_min_length: u8,

    /// Passwords hashed or checked at the same time; each takes a processor and 19 MiB
    #[arg(long, env = "MAX_CONCURRENT_HASHES", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    pub max_concurrent_hashes: u16,

    /// Origins of portals that receive the tokens of links, with commas between: `https://portal.example.org`, or
    /// `https://*.example.org` for every host with one label more
    #[arg(long, env = "PORTAL_ORIGINS")]
    pub portal_origins: PortalOrigins,

    /// Accept `http://localhost` in organizations' URLs: for development only
    #[arg(long, env = "ALLOW_HTTP_LOCALHOST")]
    pub allow_http_localhost: bool,
}

impl AccountArgs {
    /// The key that tokens are sealed to.
    ///
    /// # Errors
    /// If it is malformed.
    pub fn key(&self) -> anyhow::Result<PublicKey> {
        PublicKey::from_base64(&self.token_public_key).context("TOKEN_PUBLIC_KEY")
    }

    /// Rules of the deployment.
    ///
    /// # Errors
    /// If the origins of portals are not encrypted.
    pub fn rules(&self) -> anyhow::Result<Rules> {
        let links = LinkRules::new(self.allow_http_localhost, self.portal_origins.clone())
            .context("PORTAL_ORIGINS")?;
        Ok(Rules {
            password: PasswordPolicy {
                min_length: self.password_min_length.into(),
            },
            links,
        })
    }
}
