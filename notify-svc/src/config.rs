//! Settings, each a flag and an environment variable; secrets also as the name of a file.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, builder::NonEmptyStringValueParser};
use lettre::Address;
use secrecy::{ExposeSecret as _, SecretString};
use usher_runtime::{
    config::{
        BrokerArgs, DatabaseArgs, ListenArgs, ServerArgs, TelemetryArgs, count, duration,
        positive_duration, secret,
    },
    seal::PrivateKey,
};

use crate::{
    domain::{Recipient, RecipientLimits, Window},
    limits::SharedLimits,
    mail::Envelope,
    smtp::{RelayUrl, SmtpLogin, SmtpSettings, SmtpTimeouts, SmtpTransport},
    throttle::{InvalidLimit, Limit},
    use_cases::sending::{SenderSettings, UnknownPolicy},
};

#[cfg(test)]
mod tests;

/// Sends the emails that invitations need
#[derive(Debug, Parser)]
#[command(name = "notify-svc", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Takes events in, sends emails and serves the gRPC API until a signal
    Serve(Box<ServeArgs>),
    /// Brings the database up to date and ends
    Migrate(MigrateArgs),
    /// Prints a new pair of keys for sealing tokens, as the two services' settings take them
    GenerateKey,
}

/// Settings of `serve`.
#[derive(Debug, Args)]
// Beside account-svc on one machine.
#[command(
    mut_arg("grpc_listen", |arg| arg.default_value("127.0.0.1:50052")),
    mut_arg("admin_listen", |arg| arg.default_value("127.0.0.1:9091"))
)]
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
    /// Its emails.
    #[command(flatten)]
    pub notify: NotifyArgs,
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
    /// Its logs, traces and metrics.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// Everything about emails but the relay.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Emails")]
pub struct NotifyArgs {
    /// The relay that takes the emails.
    #[command(flatten)]
    pub smtp: SmtpArgs,

    /// Address in the From header and the SMTP envelope, for example `no-reply@example.org`; organizations set the
    /// name beside it
    #[arg(long, env = "MAIL_FROM", value_parser = mail_from)]
    pub mail_from: Address,

    /// Keys that open sealed tokens, of `notify-svc generate-key`; several, separated by commas, while
    /// they are rotated: put the new one here first, then give account-svc its public half, and take the
    /// old one away when its last links have expired
    #[arg(long, env = "TOKEN_PRIVATE_KEY", hide_env_values = true)]
    pub token_private_key: Option<SecretString>,

    /// File that holds the keys
    #[arg(
        long,
        env = "TOKEN_PRIVATE_KEY_FILE",
        conflicts_with = "token_private_key"
    )]
    pub token_private_key_file: Option<PathBuf>,

    /// Invitations to one recipient in any period, for example `5/24h`; at most 1000
    #[arg(long, env = "RECIPIENT_LIMIT", default_value = "5/24h", value_parser = recipient_limit)]
    pub recipient_limit: Limit,

    /// Least time between two invitations to one recipient; `0s` for none
    #[arg(long, env = "RECIPIENT_GAP", default_value = "60s", value_parser = recipient_gap)]
    pub recipient_gap: Duration,

    /// Security mail to one recipient, which does not wait behind invitations; at most 1000
    #[arg(long, env = "SECURITY_LIMIT", default_value = "5/1h", value_parser = recipient_limit)]
    pub security_limit: Limit,

    /// Emails to one domain, for example `100/1m`; none means no limit
    #[arg(long, env = "DOMAIN_LIMIT")]
    pub domain_limit: Option<Limit>,

    /// Emails of one organization; none means no limit
    #[arg(long, env = "ORGANIZATION_LIMIT")]
    pub organization_limit: Option<Limit>,

    /// Emails through the relay; none means no limit
    #[arg(long, env = "RELAY_LIMIT")]
    pub relay_limit: Option<Limit>,

    /// Time after which an email that was being handed over is taken from a process that does not answer any
    /// more; renewed each third of it while the process works. At least 3 seconds
    #[arg(long, env = "SEND_LEASE", default_value = "1m", value_parser = positive_duration)]
    pub send_lease: Duration,

    /// Delay before an email that was refused for now is tried again; doubles with each refusal
    #[arg(long, env = "RETRY_BASE", default_value = "1m", value_parser = positive_duration)]
    pub retry_base: Duration,

    /// Longest delay between two attempts
    #[arg(long, env = "RETRY_MAX", default_value = "1h", value_parser = positive_duration)]
    pub retry_max: Duration,

    /// What becomes of an email when the relay's answer was lost after its final dot
    #[arg(long, env = "UNKNOWN_OUTCOME", value_enum, default_value = "resend")]
    pub unknown_outcome: UnknownPolicy,

    /// How long to wait before such an email is sent once more
    #[arg(long, env = "UNKNOWN_DELAY", default_value = "1m", value_parser = positive_duration)]
    pub unknown_delay: Duration,

    /// How long emails are kept after they were asked for, once they are not to be sent any more: 30 to 3650
    /// days
    #[arg(long, env = "DELIVERY_RETENTION", default_value = "400days", value_parser = duration)]
    pub delivery_retention: Duration,
}

/// The SMTP relay.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "SMTP relay")]
pub struct SmtpArgs {
    /// The relay: `smtp://host[:port]` (port 25) or `smtp+starttls://` (587), both with STARTTLS, which only
    /// `smtp://localhost` and other addresses of this machine go without where it is not offered; `smtps://` (465, TLS
    /// from the first byte); or `smtp+plaintext://` (25, never encrypted), for a relay in a network that is trusted
    #[arg(
        long,
        env = "SMTP_URL",
        hide_env_values = true,
        default_value = "smtp://127.0.0.1:25"
    )]
    pub smtp_url: RelayUrl,

    /// User name for the login; none sends without
    #[arg(long, env = "SMTP_USERNAME", value_parser = NonEmptyStringValueParser::new())]
    pub smtp_username: Option<String>,

    /// Password for the login
    #[arg(
        long,
        env = "SMTP_PASSWORD",
        hide_env_values = true,
        requires = "smtp_username"
    )]
    pub smtp_password: Option<SecretString>,

    /// File that holds the password
    #[arg(
        long,
        env = "SMTP_PASSWORD_FILE",
        conflicts_with = "smtp_password",
        requires = "smtp_username"
    )]
    pub smtp_password_file: Option<PathBuf>,

    /// Send the password over a connection that is not encrypted
    #[arg(long, env = "SMTP_ALLOW_PLAINTEXT_LOGIN")]
    pub smtp_allow_plaintext_login: bool,

    /// Authorities to trust besides the system's (PEM)
    #[arg(long, env = "SMTP_CA_FILE")]
    pub smtp_ca_file: Option<PathBuf>,

    /// Name that the service gives itself in EHLO, which relays look up: a host name, for example `mail.example.org`,
    /// or an address, `[192.0.2.1]`
    #[arg(long, env = "SMTP_EHLO_NAME", value_parser = ehlo_name)]
    pub smtp_ehlo_name: String,

    /// Most connections
    #[arg(long, env = "SMTP_MAX_CONNECTIONS", default_value_t = 16, value_parser = count())]
    pub smtp_max_connections: usize,

    /// Emails after which a connection is closed
    #[arg(long, env = "SMTP_MAX_MAILS_PER_CONNECTION", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub smtp_max_mails_per_connection: u32,

    /// Time after which an unused connection is closed
    #[arg(long, env = "SMTP_IDLE_TIMEOUT", default_value = "30s", value_parser = positive_duration)]
    pub smtp_idle_timeout: Duration,

    /// Longest wait for a connection to one address of the relay, and for the TLS handshake; all addresses together
    /// have twice that
    #[arg(long, env = "SMTP_CONNECT_TIMEOUT", default_value = "30s", value_parser = positive_duration)]
    pub smtp_connect_timeout: Duration,

    /// Longest wait for the whole reply to a command. RFC 5321 has five minutes; but nothing is accepted before the
    /// content, so giving up sooner costs another attempt and no more, and other emails need the connection
    #[arg(long, env = "SMTP_COMMAND_TIMEOUT", default_value = "1m", value_parser = positive_duration)]
    pub smtp_command_timeout: Duration,

    /// Longest wait for the reply to an email. Ten minutes (RFC 5321): with less, an email that the relay takes long
    /// to store is sent twice
    #[arg(long, env = "SMTP_DATA_TIMEOUT", default_value = "10m", value_parser = positive_duration)]
    pub smtp_data_timeout: Duration,
}

impl NotifyArgs {
    /// The keys that open sealed tokens.
    ///
    /// # Errors
    /// If none is set, or one is malformed.
    pub fn keys(&self) -> anyhow::Result<Arc<[PrivateKey]>> {
        let text = secret(
            self.token_private_key.as_ref(),
            self.token_private_key_file.as_ref(),
            "TOKEN_PRIVATE_KEY",
        )?;
        let keys: Arc<[_]> = text
            .expose_secret()
            .split([',', '\n'])
            .map(str::trim)
            .filter(|key| !key.is_empty())
            .map(|key| PrivateKey::from_base64(key).context("TOKEN_PRIVATE_KEY"))
            .collect::<anyhow::Result<_>>()?;
        anyhow::ensure!(
            !keys.is_empty(),
            "TOKEN_PRIVATE_KEY holds no key: `notify-svc generate-key` makes one"
        );
        Ok(keys)
    }

    /// What a recipient can be sent.
    #[must_use]
    pub fn recipient_limits(&self) -> RecipientLimits {
        let window = |limit: Limit, gap| Window::new(limit.burst(), limit.period(), gap);
        RecipientLimits {
            mail: window(self.recipient_limit, self.recipient_gap),
            security: window(self.security_limit, Duration::ZERO),
        }
    }

    /// How the sender works; `drain` is the time that it has at the end.
    ///
    /// # Errors
    /// If the lease is too short to be renewed, or the first delay is longer than the longest.
    pub fn sender(&self, drain: Duration) -> anyhow::Result<SenderSettings> {
        anyhow::ensure!(
            self.send_lease >= Duration::from_secs(3),
            "SEND_LEASE must be at least 3s: it is renewed each third"
        );
        anyhow::ensure!(
            self.retry_base <= self.retry_max,
            "RETRY_BASE is longer than RETRY_MAX"
        );
        Ok(SenderSettings {
            connections: self.smtp.smtp_max_connections,
            lease: self.send_lease,
            retry_base: self.retry_base,
            retry_max: self.retry_max,
            unknown_policy: self.unknown_outcome,
            unknown_delay: self.unknown_delay,
            recipient_limits: self.recipient_limits(),
            limits: SharedLimits {
                domain: self.domain_limit,
                organization: self.organization_limit,
                relay: self.relay_limit,
            },
            drain,
        })
    }

    /// How long emails are kept.
    ///
    /// # Errors
    /// If it is out of bounds.
    pub fn delivery_retention(&self) -> anyhow::Result<Duration> {
        const DAY: Duration = Duration::from_hours(24);
        anyhow::ensure!(
            (30 * DAY..=3_650 * DAY).contains(&self.delivery_retention),
            "DELIVERY_RETENTION must be between 30 and 3650 days"
        );
        Ok(self.delivery_retention)
    }

    /// What all emails have in common.
    #[must_use]
    pub fn envelope(&self) -> Envelope {
        Envelope {
            from: self.mail_from.clone(),
        }
    }
}

impl SmtpArgs {
    /// A pool of connections to the relay.
    ///
    /// # Errors
    /// If a setting cannot be used.
    pub fn transport(&self) -> anyhow::Result<SmtpTransport> {
        SmtpTransport::new(SmtpSettings {
            url: self.smtp_url.clone(),
            ehlo_name: self.smtp_ehlo_name.clone(),
            login: self.login()?,
            ca_file: self.smtp_ca_file.clone(),
            max_connections: self.smtp_max_connections,
            max_mails_per_connection: self.smtp_max_mails_per_connection,
            idle_timeout: self.smtp_idle_timeout,
            timeouts: self.timeouts(),
        })
    }

    fn login(&self) -> anyhow::Result<Option<SmtpLogin>> {
        let Some(username) = self.smtp_username.clone() else {
            return Ok(None);
        };
        let password = secret(
            self.smtp_password.as_ref(),
            self.smtp_password_file.as_ref(),
            "SMTP_PASSWORD",
        )
        .context("SMTP_USERNAME needs a password")?;
        Ok(Some(SmtpLogin {
            username,
            password,
            allow_plaintext: self.smtp_allow_plaintext_login,
        }))
    }

    fn timeouts(&self) -> SmtpTimeouts {
        SmtpTimeouts {
            connect: self.smtp_connect_timeout,
            command: self.smtp_command_timeout,
            data: self.smtp_data_timeout,
        }
    }
}

fn mail_from(text: &str) -> Result<Address, &'static str> {
    Recipient::parse(text)
        .map(|sender| sender.address().clone())
        .map_err(|_| "expected an address without a name, for example `no-reply@example.org`")
}

/// Bounded, because all emails of a period are read to find the next slot.
fn recipient_limit(text: &str) -> Result<Limit, String> {
    let limit: Limit = text
        .parse()
        .map_err(|error: InvalidLimit| error.to_string())?;
    if limit.burst() > 1_000 {
        return Err("must be at most 1000 emails; expected for example 5/24h".to_owned());
    }
    Ok(limit)
}

/// Bounded, so that no time is beyond what can be reckoned with.
fn recipient_gap(text: &str) -> Result<Duration, String> {
    let gap = duration(text)?;
    if gap > Duration::from_hours(30 * 24) {
        return Err("must be at most 30 days".to_owned());
    }
    Ok(gap)
}

/// A domain, or an address literal (RFC 5321, section 4.1.3).
fn ehlo_name(text: &str) -> Result<String, &'static str> {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    if text.is_empty() || text.len() > 255 || !text.bytes().all(is_part) {
        return Err(
            "expected a host name, for example `mail.example.org`, or an address, `[192.0.2.1]`",
        );
    }
    Ok(text.to_owned())
}
