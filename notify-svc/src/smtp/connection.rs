//! One SMTP connection: every command with a timeout, every error dropping what is out of step.

use std::{
    error::Error as _,
    fmt::Display,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use lettre::transport::smtp::{
    Error,
    authentication::{Credentials, Mechanism},
    client::{AsyncSmtpConnection, AsyncTokioStream},
    commands::{Data, Mail, Noop, Quit, Rcpt, Rset},
    extension::{ClientId, Extension, MailBodyParameter, MailParameter},
    response::Response,
};
use secrecy::ExposeSecret as _;
use tokio::{net::TcpStream, time::timeout};

use super::{
    Security, SmtpSettings,
    bounded::{Allowance, BoundedStream},
    tls::Tls,
};
use crate::{
    domain::{Reply, Stage},
    mail::{OutgoingMail, SendError},
};

const TLS_FAILED: &str =
    "the TLS handshake failed; for a certificate of an authority of your own set SMTP_CA_FILE";

/// How long the relay may take. RFC 5321, section 4.5.3.2, asks for minutes from servers that talk to
/// strangers; this is our own relay.
#[derive(Debug, Clone, Copy)]
pub struct SmtpTimeouts {
    /// For the TCP connection and the TLS handshake each.
    pub connect: Duration,
    /// For the reply to a command.
    pub command: Duration,
    /// For the reply to the final dot, which is when the relay stores the email.
    pub data: Duration,
}

impl SmtpTimeouts {
    /// The longest that sending one email over an open connection can take.
    #[must_use]
    pub fn longest_send(&self) -> Duration {
        // MAIL, RCPT, DATA, the content, and RSET after a refusal.
        self.command * 4 + self.data
    }
}

/// An open connection that is in step.
pub struct Connection {
    smtp: AsyncSmtpConnection,
    timeouts: SmtpTimeouts,
    /// For the reply to each command.
    allowance: Allowance,
    /// Emails sent over it.
    pub sent: u32,
    /// When it was last used.
    pub used: Instant,
}

impl Connection {
    /// Connects, encrypts, logs in.
    pub async fn open(settings: &SmtpSettings, tls: Option<&Tls>) -> Result<Self, SendError> {
        let timeouts = settings.timeouts;
        let address = (settings.url.host.as_str(), settings.url.port);
        let tcp = timeout(timeouts.connect, TcpStream::connect(address))
            .await
            .map_err(|_| unusable("no connection in time"))?
            .map_err(|error| unusable(format!("no connection: {error}")))?;
        // Without this each email waits 40 ms for a delayed acknowledgement.
        tcp.set_nodelay(true)
            .map_err(|error| unusable(format!("no connection: {error}")))?;

        let hello = ClientId::Domain(settings.ehlo_name.clone());
        let implicit = settings.url.security == Security::Implicit;
        let allowance = Allowance::new();
        let stream = BoundedStream::new(tcp, allowance.clone());
        let greeting = async {
            let stream: Box<dyn AsyncTokioStream> = match tls {
                Some(tls) if implicit => {
                    let encrypted = tls.encrypt(stream).await;
                    Box::new(encrypted.map_err(|_| unusable(TLS_FAILED))?)
                }
                _ => Box::new(stream),
            };
            AsyncSmtpConnection::connect_with_transport(stream, &hello)
                .await
                .map_err(|error| refusal(Stage::Connect, &error, &allowance))
        };
        let smtp = timeout(timeouts.connect + timeouts.command, greeting)
            .await
            .map_err(|_| unusable("no greeting in time"))??;
        let mut connection = Self {
            smtp,
            timeouts,
            allowance,
            sent: 0,
            used: Instant::now(),
        };
        let encrypted = implicit || connection.start_tls(settings, tls, &hello).await?;
        connection.log_in(settings, encrypted).await?;
        Ok(connection)
    }

    /// Whether the connection is encrypted afterwards.
    async fn start_tls(
        &mut self,
        settings: &SmtpSettings,
        tls: Option<&Tls>,
        hello: &ClientId,
    ) -> Result<bool, SendError> {
        let Some(tls) = tls else { return Ok(false) };
        if !self.smtp.can_starttls() {
            return match settings.url.security {
                Security::StartTls => Err(unusable("it offers no STARTTLS")),
                _ => Ok(false),
            };
        }
        self.allowance.renew();
        let upgrade = self.smtp.starttls(tls.upgrade.clone(), hello);
        match timeout(self.timeouts.connect + self.timeouts.command, upgrade).await {
            Ok(Ok(())) => Ok(true),
            Ok(Err(error)) if error.status().is_none() && !self.allowance.is_used_up() => {
                Err(unusable(TLS_FAILED))
            }
            Ok(Err(error)) => Err(refusal(Stage::Connect, &error, &self.allowance)),
            Err(_) => Err(unusable("no TLS in time")),
        }
    }

    async fn log_in(&mut self, settings: &SmtpSettings, encrypted: bool) -> Result<(), SendError> {
        let Some(login) = &settings.login else {
            return Ok(());
        };
        if !encrypted && !login.allow_plaintext {
            return Err(unusable(
                "the connection is not encrypted, and the password is not sent in the clear",
            ));
        }
        let credentials = Credentials::new(
            login.username.clone(),
            login.password.expose_secret().to_owned(),
        );
        self.allowance.renew();
        let attempt = self
            .smtp
            .auth(&[Mechanism::Plain, Mechanism::Login], &credentials);
        match timeout(self.timeouts.command, attempt).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) if error.is_client() => {
                Err(unusable("it offers neither AUTH PLAIN nor AUTH LOGIN"))
            }
            Ok(Err(error)) => Err(refusal(Stage::Connect, &error, &self.allowance)),
            Err(_) => Err(unusable("no answer to AUTH in time")),
        }
    }

    /// Hands an email over. After any error but [`SendError::Refused`] and [`SendError::NeedsSmtpUtf8`]
    /// the connection is out of step.
    pub async fn send(&mut self, mail: &OutgoingMail) -> Result<Reply, SendError> {
        let parameters = self.mail_parameters(mail)?;
        self.command(
            Stage::Mail,
            Mail::new(Some(mail.sender.clone()), parameters),
        )
        .await?;
        self.command(
            Stage::Recipient,
            Rcpt::new(mail.recipient.clone(), Vec::new()),
        )
        .await?;
        self.command(Stage::Data, Data).await?;

        let ended = AtomicBool::new(false);
        let content = Content {
            raw: Some(&mail.raw),
            ended: &ended,
        };
        self.allowance.renew();
        let reply = timeout(self.timeouts.data, self.smtp.message_iter(content)).await;
        let lost = if ended.load(Ordering::Relaxed) {
            SendError::AnswerLost
        } else {
            // RFC 5321, section 4.1.1.4: without the final dot nothing is delivered.
            SendError::Interrupted
        };
        match reply {
            Ok(Ok(response)) => {
                self.sent += 1;
                self.used = Instant::now();
                Ok(accepted(&response))
            }
            Ok(Err(error)) if error.status().is_some() => {
                Err(refusal(Stage::Content, &error, &self.allowance))
            }
            Ok(Err(_)) | Err(_) => Err(lost),
        }
    }

    fn mail_parameters(&self, mail: &OutgoingMail) -> Result<Vec<MailParameter>, SendError> {
        let mut parameters = Vec::new();
        let server = self.smtp.server_info();
        let address: &str = mail.recipient.as_ref();
        if !address.is_ascii() {
            if !server.supports_feature(Extension::SmtpUtfEight) {
                return Err(SendError::NeedsSmtpUtf8);
            }
            parameters.push(MailParameter::SmtpUtfEight);
        }
        if !mail.raw.is_ascii() && server.supports_feature(Extension::EightBitMime) {
            parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
        }
        Ok(parameters)
    }

    /// Whether the relay is still there.
    pub async fn is_alive(&mut self) -> bool {
        self.command(Stage::Connect, Noop).await.is_ok()
    }

    /// Forgets an email that was refused, for the next one.
    pub async fn reset(&mut self) -> bool {
        self.used = Instant::now();
        self.command(Stage::Connect, Rset).await.is_ok()
    }

    /// Takes leave.
    pub async fn quit(mut self) {
        let _ = self.command(Stage::Connect, Quit).await;
    }

    async fn command(
        &mut self,
        stage: Stage,
        command: impl Display,
    ) -> Result<Response, SendError> {
        self.allowance.renew();
        match timeout(self.timeouts.command, self.smtp.command(command)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(refusal(stage, &error, &self.allowance)),
            Err(_) => Err(gone(stage)),
        }
    }
}

fn unusable(reason: impl Into<String>) -> SendError {
    SendError::Relay(reason.into())
}

/// A 4yz or 5yz reply, one that is too long, or a connection that is gone.
fn refusal(stage: Stage, error: &Error, allowance: &Allowance) -> SendError {
    match error.status() {
        Some(code) => SendError::Refused {
            stage,
            reply: Reply::new(
                code.into(),
                &error.source().map(ToString::to_string).unwrap_or_default(),
            ),
        },
        None if allowance.is_used_up() => unusable("its reply is too long"),
        None => gone(stage),
    }
}

/// The relay hung up or fell silent.
fn gone(stage: Stage) -> SendError {
    match stage {
        Stage::Connect => unusable("it hung up or did not answer in time"),
        Stage::Mail | Stage::Recipient | Stage::Data | Stage::Content => SendError::Interrupted,
    }
}

fn accepted(response: &Response) -> Reply {
    Reply::new(
        response.code().into(),
        response.first_line().unwrap_or_default(),
    )
}

/// The content of an email. That it is asked for more after its only part means that all of it was
/// written, and that the final dot is written next: from then on the relay may have accepted the email.
struct Content<'a> {
    raw: Option<&'a [u8]>,
    ended: &'a AtomicBool,
}

impl<'a> Iterator for Content<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<Self::Item> {
        let part = self.raw.take();
        if part.is_none() {
            self.ended.store(true, Ordering::Relaxed);
        }
        part
    }
}
