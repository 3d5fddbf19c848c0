//! Both services in this process, as their own programs would run them, but for the parts around them.

use anyhow::{Context as _, anyhow};
use clap::Parser;
use notify_svc::local_inbox::LocalInbox;
use notify_svc::mail::MailTransport;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;
use usher_runtime::bus::EventBus;
use usher_runtime::config::ServerArgs;
use usher_runtime::database::Pools;
use usher_runtime::seal::PrivateKey;

use crate::databases::Database;

/// Connections of each service for calls, and half as many for its workers; the private PostgreSQL takes 100
/// in all.
const MAX_CONNECTIONS: u32 = 16;

/// What is around the services.
pub(crate) struct Surroundings {
    pub(crate) account_database: Database,
    pub(crate) notify_database: Database,
    /// The only portal: the web page.
    pub(crate) portal_url: String,
    /// Opens the tokens that account-svc seals.
    pub(crate) token_key: PrivateKey,
    /// `None`: the bus in this process.
    pub(crate) amqp_url: Option<SecretString>,
    /// `None`: the local inbox.
    pub(crate) smtp_url: Option<SecretString>,
}

/// account-svc's own settings, from its environment variables and defaults.
#[derive(Parser)]
#[command(name = "account-svc")]
struct AccountSettings {
    #[command(flatten)]
    account: account_svc::config::AccountArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// notify-svc's own settings.
#[derive(Parser)]
#[command(name = "notify-svc")]
struct NotifySettings {
    #[command(flatten)]
    notify: notify_svc::config::NotifyArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// The running services.
pub(crate) struct Services {
    /// `None` if emails go to a real relay.
    pub(crate) inbox: Option<LocalInbox>,
    account: Service,
    notify: Service,
}

struct Service {
    name: &'static str,
    task: JoinHandle<anyhow::Result<()>>,
    stop: CancellationToken,
}

impl Surroundings {
    /// Brings both databases up to date, as their owner.
    ///
    /// # Errors
    ///
    /// If a database is away or a migration fails.
    pub(crate) async fn migrate(&self) -> anyhow::Result<()> {
        account_svc::app::migrate(&self.account_database.owner_url).await?;
        notify_svc::app::migrate(&self.notify_database.owner_url).await
    }

    fn bus(&self, connection_name: &str) -> anyhow::Result<Option<EventBus>> {
        let url = self.amqp_url.as_ref();
        url.map(|url| EventBus::rabbitmq(url, connection_name).context("AMQP_URL"))
            .transpose()
    }

    fn account_settings(&self) -> anyhow::Result<AccountSettings> {
        let key = self.token_key.public_key().to_base64();
        let settings = [
            "account-svc",
            "--allow-unauthenticated",
            "--allow-http-localhost",
            "--token-public-key",
            &key,
            "--portal-origins",
            &self.portal_url,
        ];
        AccountSettings::try_parse_from(settings).map_err(|error| anyhow!("{error}"))
    }

    fn notify_settings(&self) -> anyhow::Result<NotifySettings> {
        let mut settings = vec!["notify-svc", "--allow-unauthenticated"];
        if let Some(url) = &self.smtp_url {
            settings.extend(["--smtp-url", url.expose_secret()]);
        } else {
            // No relay asks who sends.
            for (variable, setting) in [
                ("MAIL_FROM", "--mail-from=no-reply@usher.localhost"),
                ("SMTP_EHLO_NAME", "--smtp-ehlo-name=localhost"),
            ] {
                if std::env::var_os(variable).is_none() {
                    settings.push(setting);
                }
            }
        }
        let mut settings =
            NotifySettings::try_parse_from(settings).map_err(|error| anyhow!("{error}"))?;
        let key = self.token_key.to_base64();
        settings.notify.token_private_key = Some(SecretString::from(key.as_str()));
        settings.notify.token_private_key_file = None;
        Ok(settings)
    }
}

impl Services {
    /// Starts both.
    ///
    /// # Errors
    ///
    /// If a setting cannot be used; the message names it.
    pub(crate) fn start(
        surroundings: &Surroundings,
        account_listener: TcpListener,
        notify_listener: TcpListener,
    ) -> anyhow::Result<Self> {
        let in_process = EventBus::in_process();
        let account_bus = surroundings
            .bus("account-svc")?
            .unwrap_or_else(|| in_process.clone());
        let notify_bus = surroundings.bus("notify-svc")?.unwrap_or(in_process);
        let settings = surroundings.notify_settings()?;
        let account = start_account(surroundings, account_bus, account_listener)?;
        let pools = pools(
            &surroundings.notify_database.service_url,
            notify_svc::db::ROLE,
        )?;
        let (inbox, notify) = if surroundings.smtp_url.is_some() {
            let transport = settings.notify.smtp.transport()?;
            let notify = start_notify(&settings, pools, notify_bus, transport, notify_listener)?;
            (None, notify)
        } else {
            let inbox = LocalInbox::new();
            let transport = inbox.clone();
            let notify = start_notify(&settings, pools, notify_bus, transport, notify_listener)?;
            (Some(inbox), notify)
        };
        Ok(Self {
            inbox,
            account,
            notify,
        })
    }

    /// Waits until one of them has ended by itself, which it should not.
    pub(crate) async fn ended(&mut self) -> anyhow::Error {
        let (name, result) = tokio::select! {
            result = &mut self.account.task => (self.account.name, result),
            result = &mut self.notify.task => (self.notify.name, result),
        };
        match flatten(result) {
            Ok(()) => anyhow!("{name} ended"),
            Err(error) => error.context(format!("{name} ended")),
        }
    }

    /// Stops both: account-svc first, while notify-svc still takes its last events.
    ///
    /// # Errors
    ///
    /// If one of them ends with an error.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        for service in [self.account, self.notify] {
            service.stop.cancel();
            flatten(service.task.await).context(service.name)?;
        }
        Ok(())
    }
}

fn start_account(
    surroundings: &Surroundings,
    bus: EventBus,
    listener: TcpListener,
) -> anyhow::Result<Service> {
    let settings = surroundings.account_settings()?;
    let pools = pools(
        &surroundings.account_database.service_url,
        account_svc::db::ROLE,
    )?;
    let application =
        account_svc::app::Application::build(&settings.account, &settings.server, pools)?;
    let stop = CancellationToken::new();
    let task = tokio::spawn(application.run_until_stopped(bus, listener.into(), stop.clone()));
    Ok(Service {
        name: "account-svc",
        task,
        stop,
    })
}

fn start_notify(
    settings: &NotifySettings,
    pools: Pools,
    bus: EventBus,
    transport: impl MailTransport,
    listener: TcpListener,
) -> anyhow::Result<Service> {
    let application =
        notify_svc::app::Application::build(&settings.notify, &settings.server, pools, transport)?;
    let stop = CancellationToken::new();
    let task = tokio::spawn(application.run_until_stopped(bus, listener.into(), stop.clone()));
    Ok(Service {
        name: "notify-svc",
        task,
        stop,
    })
}

fn pools(url: &SecretString, role: &str) -> anyhow::Result<Pools> {
    Pools::connect(url, role, MAX_CONNECTIONS, MAX_CONNECTIONS / 2).context("DATABASE_URL")
}

fn flatten(result: Result<anyhow::Result<()>, JoinError>) -> anyhow::Result<()> {
    result.context("it panicked")?
}
