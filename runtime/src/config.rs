//! Settings that both services have, each a flag and an environment variable.

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::{
    Args, ValueEnum,
    builder::{NonEmptyStringValueParser, RangedU64ValueParser},
};
use secrecy::{ExposeSecret as _, SecretString};

use crate::{bus::EventBus, database::Pools};

mod callers;
mod command_line;
#[cfg(test)]
mod tests;

pub use self::{
    callers::{CallerArgs, TlsArgs},
    command_line::run,
};

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For reading in a terminal.
    Pretty,
}

/// Logs, traces and metrics.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Telemetry")]
pub struct TelemetryArgs {
    /// How log lines are written
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value = "json")]
    pub log_format: LogFormat,

    /// Which log lines are written, for example `info,sqlx=debug` (tracing-subscriber's `EnvFilter`); the
    /// AMQP library is silent by default: it logs every failed attempt, where we log one line for an outage
    #[arg(long, env = "LOG_FILTER", default_value = "info,lapin=off", value_parser = NonEmptyStringValueParser::new())]
    pub log_filter: String,

    /// OTLP/gRPC collector for traces and metrics, for example `http://localhost:4317`; none means that
    /// nothing is exported
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", hide_env_values = true, value_parser = otlp_endpoint)]
    pub otlp_endpoint: Option<String>,
}

/// The gRPC server.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Server")]
pub struct ServerArgs {
    /// Longest that a call may take, the arrival of its request included; after that the caller gets
    /// `DEADLINE_EXCEEDED`. A shorter deadline of the caller's own (`grpc-timeout`) holds too
    #[arg(long, env = "REQUEST_TIMEOUT", default_value = "20s", value_parser = positive_duration)]
    pub request_timeout: Duration,

    /// Calls worked on at the same time; more are refused with `UNAVAILABLE` and the reason `OVERLOADED`.
    /// Health and reflection have bounds of their own and do not count, nor do requests that are still being received
    #[arg(long, env = "MAX_CONCURRENT_REQUESTS", default_value_t = 512, value_parser = count())]
    pub max_concurrent_requests: usize,

    /// Streaming calls served at the same time, apart from the others
    #[arg(long, env = "MAX_STREAMING_REQUESTS", default_value_t = 256, value_parser = count())]
    pub max_streaming_requests: usize,

    /// Time after which a streaming call ends with `DEADLINE_EXCEEDED` if nothing was sent in either direction
    #[arg(long, env = "STREAM_IDLE_TIMEOUT", default_value = "5m", value_parser = positive_duration)]
    pub stream_idle_timeout: Duration,

    /// Connections at the same time. If there are more, the oldest one over which no call was let in yet is closed
    /// for the new one; if there is none, the new one is
    #[arg(long, env = "MAX_CONNECTIONS", default_value_t = 4096, value_parser = count())]
    pub max_connections: usize,

    /// Concurrent calls of one HTTP/2 connection; more wait in the client
    #[arg(long, env = "MAX_CONCURRENT_STREAMS", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_concurrent_streams: u32,

    /// Largest message that is accepted, in bytes: 1,000 to 67,108,864 (64 MiB)
    #[arg(long, env = "MAX_MESSAGE_BYTES", default_value_t = 1024 * 1024, value_parser = RangedU64ValueParser::<usize>::new().range(1_000..=67_108_864))]
    pub max_message_bytes: usize,

    /// Bytes of requests beyond the first 16 KiB of each, and of responses of more than 16 KiB, that are held at
    /// the same time; what does not fit is refused with `UNAVAILABLE`. At least one largest message
    #[arg(long, env = "MAX_BUFFERED_BYTES", default_value_t = 64 * 1024 * 1024)]
    pub max_buffered_bytes: usize,

    /// Age at which a connection is closed gracefully, so that load spreads over new replicas
    #[arg(long, env = "MAX_CONNECTION_AGE", default_value = "30m", value_parser = positive_duration)]
    pub max_connection_age: Duration,

    /// Longest that calls and background work may take to finish after a signal; publishing what is in the
    /// outbox and closing connections take up to 20 seconds more
    #[arg(long, env = "SHUTDOWN_TIMEOUT", default_value = "25s", value_parser = positive_duration)]
    pub shutdown_timeout: Duration,

    /// Who may call.
    #[command(flatten)]
    pub callers: CallerArgs,
}

/// The database.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Database")]
pub struct DatabaseArgs {
    /// URL of the service's PostgreSQL database
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<SecretString>,

    /// File that holds the URL of the database
    #[arg(long, env = "DATABASE_URL_FILE", conflicts_with = "database_url")]
    pub database_url_file: Option<PathBuf>,

    /// Most connections to the database that calls use at the same time; those of one organization use at most half
    #[arg(long, env = "DATABASE_MAX_CONNECTIONS", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    pub database_max_connections: u32,

    /// Most connections to the database that background work uses at the same time, in addition to those of calls; one
    /// more watches whether the database answers; the relay holds up to two
    #[arg(long, env = "DATABASE_MAX_WORKER_CONNECTIONS", default_value_t = 8, value_parser = clap::value_parser!(u32).range(4..))]
    pub database_max_worker_connections: u32,
}

/// The broker.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Broker")]
pub struct BrokerArgs {
    /// URL of RabbitMQ, for example `amqp://user:password@localhost:5672/%2f`
    #[arg(long, env = "AMQP_URL", hide_env_values = true)]
    pub amqp_url: Option<SecretString>,

    /// File that holds the URL of RabbitMQ
    #[arg(long, env = "AMQP_URL_FILE", conflicts_with = "amqp_url")]
    pub amqp_url_file: Option<PathBuf>,

    /// What the names of exchanges and queues begin with, so that several installations can share a virtual
    /// host; the same for both services, up to 64 letters, digits, `.`, `_` and `-`
    #[arg(long, env = "AMQP_PREFIX", default_value = "", value_parser = amqp_prefix)]
    pub amqp_prefix: String,
}

/// Where the service listens.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Listeners")]
pub struct ListenArgs {
    /// Address of the gRPC server
    #[arg(long, env = "GRPC_LISTEN", default_value = "127.0.0.1:50051", value_parser = listen_address)]
    pub grpc_listen: SocketAddr,

    /// Address of the HTTP server for `/metrics`, `/livez` and `/readyz`
    #[arg(long, env = "ADMIN_LISTEN", default_value = "127.0.0.1:9090", value_parser = listen_address)]
    pub admin_listen: SocketAddr,
}

/// Says nothing of the URL itself, which may hold a password.
const NO_POSTGRES_URL: &str =
    "DATABASE_URL is not a PostgreSQL URL; expected postgres://user@host:port/database";

impl DatabaseArgs {
    /// The service's connections to its database, as `role`.
    ///
    /// # Errors
    /// If the URL is missing or malformed.
    pub fn pools(&self, role: &str) -> anyhow::Result<Pools> {
        Pools::connect(
            &self.url()?,
            role,
            self.database_max_connections,
            self.database_max_worker_connections,
        )
        .context(NO_POSTGRES_URL)
    }

    /// The URL of the database.
    ///
    /// # Errors
    /// If none is set, its file cannot be read, or it is of another kind of database.
    pub fn url(&self) -> anyhow::Result<SecretString> {
        let url = secret(
            self.database_url.as_ref(),
            self.database_url_file.as_ref(),
            "DATABASE_URL",
        )?;
        // The library takes any scheme.
        let is_postgres = ["postgres://", "postgresql://"]
            .iter()
            .any(|scheme| url.expose_secret().starts_with(scheme));
        anyhow::ensure!(is_postgres, NO_POSTGRES_URL);
        Ok(url)
    }
}

impl BrokerArgs {
    /// The URL of RabbitMQ.
    ///
    /// # Errors
    /// If none is set or its file cannot be read.
    pub fn url(&self) -> anyhow::Result<SecretString> {
        secret(
            self.amqp_url.as_ref(),
            self.amqp_url_file.as_ref(),
            "AMQP_URL",
        )
    }

    /// The bus, which connects in the background as `connection_name`.
    ///
    /// # Errors
    /// If no URL is set, its file cannot be read, or it is malformed.
    pub fn bus(&self, connection_name: &str) -> anyhow::Result<EventBus> {
        EventBus::rabbitmq_with_prefix(&self.url()?, connection_name, &self.amqp_prefix)
            .context("AMQP_URL")
    }
}

/// How many of something, 1 to 1,000,000.
#[must_use]
pub fn count() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=1_000_000)
}

/// A time that something may take: more than nothing, and up to 365 days.
///
/// # Errors
/// If the text is no duration, for example `1m 30s`, or out of these bounds.
pub fn positive_duration(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration.is_zero() || duration > Duration::from_hours(365 * 24) {
        return Err("must be longer than nothing, and 365 days at most".to_owned());
    }
    Ok(duration)
}

/// An empty one counts as none, as OpenTelemetry asks for.
fn otlp_endpoint(text: &str) -> Result<String, &'static str> {
    let is_url = text.parse::<http::Uri>().is_ok_and(|uri| {
        uri.authority().is_some() && matches!(uri.scheme_str(), Some("http" | "https"))
    });
    if text.is_empty() || is_url {
        return Ok(text.to_owned());
    }
    Err(
        "OTEL_EXPORTER_OTLP_ENDPOINT must be the URL of a collector, for example http://localhost:4317",
    )
}

/// A time, for example `1m 30s`.
///
/// # Errors
/// If the text is no duration.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| {
        format!("{error}; expected a number with its unit, for example `90s`, `5m` or `24h`")
    })
}

fn listen_address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(
        |_| "expected an IP address and a port, for example `0.0.0.0:50051` or `[::]:50051`",
    )
}

fn amqp_prefix(text: &str) -> Result<String, &'static str> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    // Names that begin with `amq.` belong to the broker.
    if text.len() > 64 || !text.bytes().all(is_name) || text.starts_with("amq.") {
        return Err("up to 64 letters, digits, `.`, `_` and `-`, and not beginning with `amq.`");
    }
    Ok(text.to_owned())
}

/// A secret setting, given as a value or as a file that holds it (without the line end).
///
/// # Errors
/// If neither is given, the file cannot be read, or the secret is empty; `name` is the variable to set.
pub fn secret(
    value: Option<&SecretString>,
    file: Option<&PathBuf>,
    name: &str,
) -> anyhow::Result<SecretString> {
    if let Some(value) = value {
        anyhow::ensure!(!value.expose_secret().trim().is_empty(), "{name} is empty");
        return Ok(value.clone());
    }
    let file = file.with_context(|| format!("set {name} or {name}_FILE"))?;
    let content = fs::read_to_string(file)
        .with_context(|| format!("{name}_FILE: cannot read {}", file.display()))?;
    let content = content.trim_end();
    anyhow::ensure!(
        !content.is_empty(),
        "{name}_FILE: {} is empty",
        file.display()
    );
    Ok(SecretString::from(content.to_owned()))
}
