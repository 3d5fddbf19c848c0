//! Where the relay is, in one setting.

use std::{fmt, net::IpAddr, str::FromStr};

/// How the connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// `smtp://` to this machine: with STARTTLS where the relay offers it.
    Opportunistic,
    /// `smtp+starttls://`, and `smtp://` to another machine: with STARTTLS, or not at all. Whoever is between could
    /// take the offer out of the relay's answer.
    StartTls,
    /// `smtps://`: TLS from the first byte (RFC 8314).
    Implicit,
    /// `smtp+plaintext://`: never; for a relay without TLS in a network that is trusted.
    Plaintext,
}

/// Where the relay is and how it is spoken to, for example `smtp+starttls://mail.example.org:587`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayUrl {
    /// How the connection is encrypted.
    pub security: Security,
    /// Name or address, without brackets.
    pub host: String,
    /// Port; by default 465 for `smtps://`, 587 for `smtp+starttls://`, else 25.
    pub port: u16,
}

/// Why the URL of a relay was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRelayUrl {
    /// It has another shape.
    #[error(
        "expected smtp://host[:port] or smtp+starttls:// (STARTTLS; smtp://localhost where it is offered), smtps:// \
         (TLS from the first byte) or smtp+plaintext:// (never)"
    )]
    Malformed,
    /// It holds a login.
    #[error("no login in the URL: set SMTP_USERNAME and SMTP_PASSWORD_FILE")]
    HoldsLogin,
}

impl FromStr for RelayUrl {
    type Err = InvalidRelayUrl;

    fn from_str(text: &str) -> Result<Self, InvalidRelayUrl> {
        let (scheme, rest) = text.split_once("://").ok_or(InvalidRelayUrl::Malformed)?;
        let (security, default_port) = match scheme {
            "smtp" => (Security::Opportunistic, 25),
            "smtp+starttls" => (Security::StartTls, 587),
            "smtps" => (Security::Implicit, 465),
            "smtp+plaintext" => (Security::Plaintext, 25),
            _ => return Err(InvalidRelayUrl::Malformed),
        };
        let rest = rest.trim_end_matches('/');
        if rest.contains('@') {
            return Err(InvalidRelayUrl::HoldsLogin);
        }
        let (host, port) = split_port(rest).ok_or(InvalidRelayUrl::Malformed)?;
        if host.is_empty() || host.contains(['/', '?', '#', ' ']) {
            return Err(InvalidRelayUrl::Malformed);
        }
        let port = port.map_or(Some(default_port), |port| port.parse().ok());
        let security = match security {
            Security::Opportunistic if !is_this_machine(host) => Security::StartTls,
            security => security,
        };
        Ok(Self {
            security,
            host: host.to_owned(),
            port: port.ok_or(InvalidRelayUrl::Malformed)?,
        })
    }
}

/// `localhost` and names under it (RFC 6761, section 6.3), 127.0.0.0/8 and `::1`.
fn is_this_machine(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

/// Host and port of `host`, `host:port`, `[v6]` or `[v6]:port`.
fn split_port(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(bracketed) = text.strip_prefix('[') {
        let (host, rest) = bracketed.split_once(']')?;
        return match rest {
            "" => Some((host, None)),
            _ => Some((host, Some(rest.strip_prefix(':')?))),
        };
    }
    match text.split_once(':') {
        Some((_, port)) if port.contains(':') => None,
        Some((host, port)) => Some((host, Some(port))),
        None => Some((text, None)),
    }
}

impl fmt::Display for RelayUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.security {
            Security::Opportunistic => "smtp",
            Security::StartTls => "smtp+starttls",
            Security::Implicit => "smtps",
            Security::Plaintext => "smtp+plaintext",
        };
        if self.host.contains(':') {
            write!(formatter, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(formatter, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("smtp://localhost", Security::Opportunistic, "localhost", 25)]
    #[case("smtp://127.0.0.1:2525/", Security::Opportunistic, "127.0.0.1", 2525)]
    #[case(
        "smtp://Relay.Localhost.",
        Security::Opportunistic,
        "Relay.Localhost.",
        25
    )]
    #[case(
        "smtp://[::ffff:127.0.0.9]",
        Security::Opportunistic,
        "::ffff:127.0.0.9",
        25
    )]
    #[case("smtp://relay", Security::StartTls, "relay", 25)]
    #[case(
        "smtp://localhost.example.org",
        Security::StartTls,
        "localhost.example.org",
        25
    )]
    #[case("smtp://192.0.2.1:587", Security::StartTls, "192.0.2.1", 587)]
    #[case("smtp://[2001:db8::1]", Security::StartTls, "2001:db8::1", 25)]
    #[case("smtp+plaintext://relay", Security::Plaintext, "relay", 25)]
    #[case(
        "smtp+starttls://mail.example.org",
        Security::StartTls,
        "mail.example.org",
        587
    )]
    #[case(
        "smtps://mail.example.org",
        Security::Implicit,
        "mail.example.org",
        465
    )]
    #[case("smtp+plaintext://[::1]:25", Security::Plaintext, "::1", 25)]
    fn urls_are_read(
        #[case] text: &str,
        #[case] security: Security,
        #[case] host: &str,
        #[case] port: u16,
    ) {
        let url: RelayUrl = text.parse().unwrap();
        assert_eq!(
            (url.security, url.host.as_str(), url.port),
            (security, host, port)
        );
        assert_eq!(url.to_string().parse(), Ok(url));
    }

    #[rstest]
    #[case("localhost:25", InvalidRelayUrl::Malformed)]
    #[case("http://localhost", InvalidRelayUrl::Malformed)]
    #[case("smtp://", InvalidRelayUrl::Malformed)]
    #[case("smtp://host:port", InvalidRelayUrl::Malformed)]
    #[case("smtp://::1:25", InvalidRelayUrl::Malformed)]
    #[case("smtp://user:password@host", InvalidRelayUrl::HoldsLogin)]
    fn others_are_refused(#[case] text: &str, #[case] expected: InvalidRelayUrl) {
        assert_eq!(text.parse::<RelayUrl>(), Err(expected));
    }
}
