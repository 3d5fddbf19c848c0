//! Opens an SMTP connection: greeting, EHLO, TLS, login.

use std::time::Duration;

use data_encoding::BASE64;
use secrecy::{ExposeSecret as _, zeroize::Zeroizing};
use tokio::time::Instant;

use super::{
    Security, SmtpLogin, SmtpSettings,
    dial::dial,
    extensions::Extensions,
    reply::ServerReply,
    tls::Tls,
    wire::{NoReply, Wire},
};
use crate::{domain::Stage, mail::SendError};

/// How long the relay may take.
#[derive(Debug, Clone, Copy)]
pub struct SmtpTimeouts {
    /// For the connection to one address, and for the TLS handshake; all addresses together have twice that.
    pub connect: Duration,
    /// For the whole reply to a command.
    pub command: Duration,
    /// For the reply to the final dot, which is when the relay stores the email (RFC 5321, section 4.5.3.2.6: with less
    /// than ten minutes emails are sent twice).
    pub data: Duration,
}

impl SmtpTimeouts {
    /// The longest that opening a connection takes.
    #[must_use]
    pub fn longest_open(&self) -> Duration {
        // The connection, TLS; then greeting, EHLO and login, not each of which needs its longest time.
        self.connect * 3 + self.command * 2
    }

    /// The longest that sending one email takes, a new connection in place of a dead one included.
    #[must_use]
    pub fn longest_send(&self) -> Duration {
        // RSET after a refusal, MAIL, RCPT, DATA; the content has what they leave.
        self.command * 4 + self.data
    }
}

/// What can be done with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The next email can go.
    Ready,
    /// An email was refused, and the relay may still have its envelope: RSET comes first.
    NeedsReset,
    /// Nothing: it is out of step, or something is under way.
    Unusable,
}

/// An open connection.
pub struct Connection {
    pub(super) wire: Wire,
    pub(super) extensions: Extensions,
    pub(super) timeouts: SmtpTimeouts,
    pub(super) state: State,
    /// Whether it was used for an email.
    pub(super) was_used: bool,
    /// Emails that the relay accepted over it.
    pub sent: u32,
    /// When it was last used.
    pub used: Instant,
}

impl Connection {
    /// Connects, encrypts and logs in, until `deadline`.
    ///
    /// Fails with [`SendError::Relay`] or a refusal at [`Stage::Connect`].
    pub async fn open(
        settings: &SmtpSettings,
        tls: Option<&Tls>,
        deadline: Instant,
    ) -> Result<Self, SendError> {
        let timeouts = settings.timeouts;
        let deadline = deadline.min(Instant::now() + timeouts.longest_open());
        let (url, limit) = (&settings.url, timeouts.command);
        let tcp = dial(&url.host, url.port, timeouts.connect)
            .await
            .map_err(|error| unusable(format!("no connection: {error}")))?;
        let mut wire = Wire::new(tcp, deadline);
        if let (Some(tls), Security::Implicit) = (tls, url.security) {
            wire = wire.encrypt(tls, timeouts.connect).await?;
        }
        let greeting = wire.reply(limit).await;
        expect("greeting", greeting, |reply| reply.code / 100 == 2)?;
        let mut extensions = say_hello(&mut wire, settings).await?;
        if let Some(tls) = tls.filter(|_| !wire.is_encrypted()) {
            if extensions.offers("STARTTLS") {
                let answer = wire.exchange("STARTTLS\r\n", limit).await;
                expect("STARTTLS", answer, |reply| reply.code == 220)?;
                wire = wire.encrypt(tls, timeouts.connect).await?;
                // What was said before could have been said by anybody (RFC 3207, section 4.2).
                extensions = say_hello(&mut wire, settings).await?;
            } else if url.security == Security::StartTls {
                return Err(unusable(
                    "it offers no STARTTLS; smtp+plaintext:// in SMTP_URL sends without",
                ));
            }
        }
        if let Some(login) = &settings.login {
            log_in(&mut wire, &extensions, login, limit).await?;
        }
        Ok(Self {
            wire,
            extensions,
            timeouts,
            state: State::Ready,
            was_used: false,
            sent: 0,
            used: Instant::now(),
        })
    }

    /// Whether another email can be sent over it: no command is under way, and the relay has said no more than it was
    /// asked.
    pub fn is_usable(&self) -> bool {
        self.state != State::Unusable && self.wire.is_in_step()
    }

    /// Takes leave.
    pub async fn quit(mut self) {
        let limit = self.timeouts.command;
        self.wire.deadline = Instant::now() + limit;
        let _ = self.wire.exchange("QUIT\r\n", limit).await;
    }
}

/// EHLO, or HELO for a relay that does not know it (RFC 5321, section 3.2).
async fn say_hello(wire: &mut Wire, settings: &SmtpSettings) -> Result<Extensions, SendError> {
    let (name, limit) = (&settings.ehlo_name, settings.timeouts.command);
    let answer = wire.exchange(&format!("EHLO {name}\r\n"), limit).await;
    if matches!(&answer, Ok(reply) if matches!(reply.code, 500 | 502)) {
        let answer = wire.exchange(&format!("HELO {name}\r\n"), limit).await;
        expect("HELO", answer, ServerReply::accepts)?;
        return Ok(Extensions::default());
    }
    let reply = expect("EHLO", answer, ServerReply::accepts)?;
    Ok(Extensions::from_reply(&reply))
}

/// AUTH (RFC 4954).
async fn log_in(
    wire: &mut Wire,
    extensions: &Extensions,
    login: &SmtpLogin,
    limit: Duration,
) -> Result<(), SendError> {
    if !wire.is_encrypted() && !login.allow_plaintext {
        return Err(unusable(
            "the connection is not encrypted, and the password is not sent in the clear",
        ));
    }
    let (name, password) = (&login.username, login.password.expose_secret());
    let base64 = |text: &str| Zeroizing::new(BASE64.encode(text.as_bytes()));
    if extensions.offers_login("PLAIN") {
        let response = base64(&Zeroizing::new(format!("\0{name}\0{password}")));
        let command = Zeroizing::new(format!("AUTH PLAIN {}\r\n", *response));
        let answer = wire.exchange(&command, limit).await;
        expect("AUTH", answer, ServerReply::accepts)?;
    } else if extensions.offers_login("LOGIN") {
        let goes_on = |reply: &ServerReply| reply.code == 334;
        let answer = wire.exchange("AUTH LOGIN\r\n", limit).await;
        expect("AUTH", answer, goes_on)?;
        let line = Zeroizing::new(format!("{}\r\n", *base64(name)));
        expect("AUTH", wire.exchange(&line, limit).await, goes_on)?;
        let line = Zeroizing::new(format!("{}\r\n", *base64(password)));
        let answer = wire.exchange(&line, limit).await;
        expect("AUTH", answer, ServerReply::accepts)?;
    } else {
        return Err(unusable("it offers neither AUTH PLAIN nor AUTH LOGIN"));
    }
    Ok(())
}

/// The answer to `command`, if it is one that goes on.
fn expect(
    command: &str,
    answer: Result<ServerReply, NoReply>,
    goes_on: impl Fn(&ServerReply) -> bool,
) -> Result<ServerReply, SendError> {
    match answer {
        Ok(reply) if goes_on(&reply) => Ok(reply),
        Ok(reply) if reply.refuses() => Err(SendError::Refused {
            stage: Stage::Connect,
            reply: reply.status(),
        }),
        Ok(reply) => Err(unusable(format!("{command}: it answered {}", reply.code))),
        Err(no_reply) => Err(unusable(format!("{command}: {no_reply}"))),
    }
}

fn unusable(reason: impl Into<String>) -> SendError {
    SendError::Relay(reason.into())
}
