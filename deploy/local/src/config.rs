//! The settings of the local mode.

use std::path::PathBuf;

use clap::Parser;
use secrecy::SecretString;

/// Warnings, but not that root's `~/.pgpass` cannot be read: this process was root and is no more.
const DEFAULT_LOG_FILTER: &str = "warn,sqlx_postgres::options::pgpass=error";

/// Runs Usher in one process, for trying it out: both services, a private PostgreSQL, an inbox that shows
/// the emails, and a portal in miniature behind their links. Listens on the loopback interface only.
///
/// The services take their own settings from the environment variables that `account-svc serve --help` and
/// `notify-svc serve --help` name, for example `RECIPIENT_GAP`.
#[derive(Debug, Parser)]
#[command(name = "usher-local", version, args_override_self = true)]
pub(crate) struct Args {
    /// Directory that keeps the data over restarts; without it they are gone at the end. Must be empty or
    /// made by this program
    #[arg(long, env = "USHER_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Port of account-svc (gRPC); 0 takes any free one
    #[arg(long, default_value_t = 50051, value_name = "PORT")]
    pub account_port: u16,

    /// Port of notify-svc (gRPC); 0 takes any free one
    #[arg(long, default_value_t = 50052, value_name = "PORT")]
    pub notify_port: u16,

    /// Port of the web page (HTTP); 0 takes any free one
    #[arg(long, default_value_t = 8080, value_name = "PORT")]
    pub web_port: u16,

    /// Directory with PostgreSQL's programs `initdb` and `postgres`; without it they are looked for on the
    /// PATH and where packages put them
    #[arg(long, env = "USHER_POSTGRES_BIN", value_name = "DIR")]
    pub postgres_bin: Option<PathBuf>,

    /// PostgreSQL server to use instead of a private one. Its databases `usher_account` and `usher_notify`
    /// are created if they do not exist; the login must be allowed to create databases and roles, owns them,
    /// and serves too, as the role of each service
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: Option<SecretString>,

    /// RabbitMQ to use instead of the bus in this process
    #[arg(long, env = "AMQP_URL", hide_env_values = true, value_name = "URL")]
    pub amqp_url: Option<SecretString>,

    /// Mail relay to use instead of the inbox on the web page: emails go out for real. Needs `MAIL_FROM` and
    /// `SMTP_EHLO_NAME`
    #[arg(long, env = "SMTP_URL", hide_env_values = true, value_name = "URL")]
    pub smtp_url: Option<SecretString>,

    /// Which log lines are written to standard error, for example `info` or `info,sqlx=debug`
    #[arg(long, env = "LOG_FILTER", default_value = DEFAULT_LOG_FILTER, value_name = "FILTER")]
    pub log_filter: String,
}
