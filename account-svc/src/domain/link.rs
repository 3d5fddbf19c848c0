//! URLs that an organization gives, and what may be linked to.

use url::{Host, Origin, Url};

const MAX_LENGTH: usize = 1000;

/// Why a URL was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Not a URL.
    #[error(
        "not an absolute URL like `https://portal.example.org`, of at most {MAX_LENGTH} characters"
    )]
    Malformed,
    /// Not encrypted.
    #[error("must begin with `https://`")]
    NotHttps,
    /// Holds more than the field is for.
    #[error("must hold neither user, password, query nor fragment")]
    TooMuch,
    /// Holds more than scheme, host and port.
    #[error("must be an origin: scheme, host and port alone, like `https://portal.example.org`")]
    NotAnOrigin,
    /// On an origin that the organization does not allow.
    #[error("is not on `portal_url` or one of the organization's `allowed_return_origins`")]
    OriginNotAllowed,
}

/// Which URLs are accepted.
#[derive(Debug, Clone, Copy)]
pub struct LinkRules {
    /// Whether `http://localhost` and `http://127.0.0.1` are accepted: for development only.
    pub allow_http_localhost: bool,
}

impl LinkRules {
    fn parse(self, text: &str) -> Result<Url, LinkError> {
        if text.len() > MAX_LENGTH {
            return Err(LinkError::Malformed);
        }
        let url = Url::parse(text.trim()).map_err(|_| LinkError::Malformed)?;
        let is_localhost = match url.host() {
            Some(Host::Domain(domain)) => domain == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => return Err(LinkError::Malformed),
        };
        match url.scheme() {
            "https" => {}
            "http" if is_localhost && self.allow_http_localhost => {}
            _ => return Err(LinkError::NotHttps),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(LinkError::TooMuch);
        }
        Ok(url)
    }

    /// The base of an organization's links, without a trailing slash.
    ///
    /// # Errors
    /// If it is no `https` URL, or holds a query or fragment.
    pub fn portal_url(self, text: &str) -> Result<String, LinkError> {
        let url = self.parse(text)?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(LinkError::TooMuch);
        }
        Ok(url.as_str().trim_end_matches('/').to_owned())
    }

    /// An exact origin, `https://host[:port]`.
    ///
    /// # Errors
    /// If it holds more than that.
    pub fn origin(self, text: &str) -> Result<String, LinkError> {
        let url = self.parse(text)?;
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(LinkError::NotAnOrigin);
        }
        Ok(url.origin().ascii_serialization())
    }

    /// The address of a picture.
    ///
    /// # Errors
    /// If it is no `https` URL.
    pub fn logo_url(self, text: &str) -> Result<String, LinkError> {
        self.parse(text).map(String::from)
    }

    /// A URL to return to, on the portal's own origin or an allowed one. Origins are compared whole, so
    /// that `https://portal.example.org.evil.example` is none of them (OWASP: Unvalidated Redirects and
    /// Forwards).
    ///
    /// # Errors
    /// If it is no `https` URL or on no allowed origin.
    pub fn return_url(
        self,
        text: &str,
        portal_url: &str,
        allowed_origins: &[String],
    ) -> Result<String, LinkError> {
        let url = self.parse(text)?;
        let origin = url.origin();
        let is_allowed = std::iter::once(portal_url)
            .chain(allowed_origins.iter().map(String::as_str))
            .any(|allowed| origin_of(allowed).as_ref() == Some(&origin));
        if is_allowed {
            Ok(url.into())
        } else {
            Err(LinkError::OriginNotAllowed)
        }
    }
}

fn origin_of(url: &str) -> Option<Origin> {
    Url::parse(url).ok().map(|url| url.origin())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const STRICT: LinkRules = LinkRules {
        allow_http_localhost: false,
    };
    const LOCAL: LinkRules = LinkRules {
        allow_http_localhost: true,
    };

    #[test]
    fn portals_are_https() {
        assert_eq!(
            STRICT
                .portal_url("https://Portal.example.org/app/")
                .unwrap(),
            "https://portal.example.org/app"
        );
        assert_eq!(
            STRICT.portal_url("http://a.example"),
            Err(LinkError::NotHttps)
        );
        assert_eq!(
            STRICT.portal_url("http://localhost:8080"),
            Err(LinkError::NotHttps)
        );
        assert_eq!(
            LOCAL.portal_url("http://localhost:8080").unwrap(),
            "http://localhost:8080"
        );
        assert_eq!(
            LOCAL.portal_url("http://localhost.evil.example"),
            Err(LinkError::NotHttps)
        );
        assert_eq!(
            STRICT.portal_url("javascript:alert(1)"),
            Err(LinkError::Malformed)
        );
        assert_eq!(
            STRICT.portal_url("https://u:p@a.example"),
            Err(LinkError::TooMuch)
        );
        assert_eq!(
            STRICT.portal_url("https://a.example?x=1"),
            Err(LinkError::TooMuch)
        );
    }

    #[rstest]
    #[case("https://portal.example.org/done?x=1", true)]
    #[case("https://app.example.org/", true)]
    #[case("https://app.example.org:8443/", false)]
    #[case("https://portal.example.org.evil.example/", false)]
    #[case("https://evil.example/https://portal.example.org", false)]
    #[case("https://portal.example.org@evil.example/", false)]
    #[case("http://portal.example.org/", false)]
    #[case("//portal.example.org/", false)]
    fn returns_stay_on_allowed_origins(#[case] url: &str, #[case] accepted: bool) {
        let result = STRICT.return_url(
            url,
            "https://portal.example.org/base",
            &["https://app.example.org".to_owned()],
        );
        assert_eq!(result.is_ok(), accepted, "{result:?}");
    }
}
