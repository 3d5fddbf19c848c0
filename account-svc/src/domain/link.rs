//! URLs that an organization gives, and what may be linked to.

use url::{Host, Url};

use super::{
    portal::{PortalOrigins, PortalOriginsError},
    text,
};

/// Most characters of a URL, as it is given and as it is stored.
pub const MAX_LENGTH: usize = 500;
/// Most characters of a host name, and of one of its labels (RFC 1035, section 2.3.4).
const MAX_HOST: usize = 253;
const MAX_LABEL: usize = 63;

/// Why a URL was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Not a URL.
    #[error("not an absolute URL; expected one like `https://portal.example.org`")]
    Malformed,
    /// Longer than accepted.
    #[error(
        "too long; at most {MAX_LENGTH} characters are accepted, others than ASCII counted as they are encoded"
    )]
    TooLong,
    /// Holds a character that programs read in different ways.
    #[error(
        "holds a backslash, white space, a control character or an invisible one; write these percent-encoded"
    )]
    Character,
    /// Not encrypted.
    #[error("must begin with `https://`")]
    NotHttps,
    /// The host has no name that others can look up.
    #[error(
        "must name its host by a domain with a dot, like `portal.example.org`; IP addresses are refused"
    )]
    Host,
    /// Holds more than the field is for.
    #[error("must hold neither user, password, query nor fragment")]
    TooMuch,
    /// Holds more than scheme, host and port.
    #[error("must be an origin: scheme, host and port alone, like `https://portal.example.org`")]
    NotAnOrigin,
    /// On an origin that the organization does not allow.
    #[error(
        "is not on `portal_url` or one of the organization's `allowed_return_origins`; use one of these, or add its \
         origin to `allowed_return_origins`"
    )]
    OriginNotAllowed,
    /// On an origin that the operator does not trust with tokens.
    #[error(
        "is on no origin that the operator of this platform trusts with clients' links; use the portal that you \
         were given, or ask the operator to trust this one"
    )]
    PortalNotTrusted,
}

/// Which URLs are accepted.
#[derive(Debug, Clone)]
pub struct LinkRules {
    allow_http_localhost: bool,
    portal_origins: PortalOrigins,
}

impl LinkRules {
    /// Rules of a deployment. `allow_http_localhost` accepts `http://localhost` and `http://127.0.0.1` in every
    /// URL: for development only.
    ///
    /// # Errors
    /// If an origin of a portal is on such a host, and they are not accepted.
    pub fn new(
        allow_http_localhost: bool,
        portal_origins: PortalOrigins,
    ) -> Result<Self, PortalOriginsError> {
        if !allow_http_localhost {
            portal_origins.require_https()?;
        }
        Ok(Self {
            allow_http_localhost,
            portal_origins,
        })
    }

    /// The base of an organization's links, without a trailing slash.
    ///
    /// # Errors
    /// If it is no `https` URL, holds a query or fragment, or is on no origin that is trusted with tokens.
    pub fn portal_url(&self, text: &str) -> Result<String, LinkError> {
        let url = self.parse(text)?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(LinkError::TooMuch);
        }
        if !self.portal_origins.allows_url(&url) {
            return Err(LinkError::PortalNotTrusted);
        }
        Ok(url.as_str().trim_end_matches('/').to_owned())
    }

    /// An exact origin, `https://host[:port]`.
    ///
    /// # Errors
    /// If it holds more than that.
    pub fn origin(&self, text: &str) -> Result<String, LinkError> {
        let url = self.parse(text)?;
        if is_origin(&url) {
            Ok(url.origin().ascii_serialization())
        } else {
            Err(LinkError::NotAnOrigin)
        }
    }

    /// The address of a picture.
    ///
    /// # Errors
    /// If it is no `https` URL.
    pub fn logo_url(&self, text: &str) -> Result<String, LinkError> {
        self.parse(text).map(String::from)
    }

    /// A URL to return to, on the portal's own origin or an allowed one. Origins are compared whole, so
    /// that `https://portal.example.org.evil.example` is none of them (OWASP: Unvalidated Redirects and
    /// Forwards).
    ///
    /// # Errors
    /// If it is no `https` URL or on no allowed origin.
    pub fn return_url(
        &self,
        text: &str,
        portal_url: &str,
        allowed_origins: &[String],
    ) -> Result<String, LinkError> {
        let url = self.parse(text)?;
        let origin = url.origin();
        let is_allowed = std::iter::once(portal_url)
            .chain(allowed_origins.iter().map(String::as_str))
            .any(|allowed| Url::parse(allowed).is_ok_and(|allowed| allowed.origin() == origin));
        if is_allowed {
            Ok(url.into())
        } else {
            Err(LinkError::OriginNotAllowed)
        }
    }

    fn parse(&self, text: &str) -> Result<Url, LinkError> {
        let url = parse(text)?;
        if url.scheme() == "https" || self.allow_http_localhost {
            Ok(url)
        } else {
            Err(LinkError::NotHttps)
        }
    }
}

/// An `https` URL on a named host, or an `http` one on `localhost` or `127.0.0.1`. White space around it is
/// ignored. Stricter than the URL Standard (WHATWG), which mends what browsers meet: what is read in different
/// ways by different programs is refused.
///
/// # Errors
/// Says what is wrong.
pub(super) fn parse(text: &str) -> Result<Url, LinkError> {
    let text = text.trim();
    if text.chars().count() > MAX_LENGTH {
        return Err(LinkError::TooLong);
    }
    let is_refused = |character: char| {
        character == '\\' || character.is_control() || text::is_invisible(character)
    };
    if text.contains(is_refused) {
        return Err(LinkError::Character);
    }
    let (scheme, rest) = text.split_once("://").ok_or(LinkError::Malformed)?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() {
        return Err(LinkError::Malformed);
    }
    if authority.contains('@') {
        return Err(LinkError::TooMuch);
    }
    let is_http = scheme.eq_ignore_ascii_case("http");
    if !is_http && !scheme.eq_ignore_ascii_case("https") {
        return Err(LinkError::NotHttps);
    }
    let url = Url::parse(text).map_err(|_| LinkError::Malformed)?;
    if url.as_str().len() > MAX_LENGTH {
        return Err(LinkError::TooLong);
    }
    match (is_http, is_local(&url), url.host()) {
        (true, true, _) => Ok(url),
        (true, false, _) => Err(LinkError::NotHttps),
        (false, _, Some(Host::Domain(domain))) if is_named(domain) => Ok(url),
        (false, ..) => Err(LinkError::Host),
    }
}

/// Whether a URL holds nothing but scheme, host and port.
pub(super) fn is_origin(url: &Url) -> bool {
    url.path() == "/" && url.query().is_none() && url.fragment().is_none()
}

fn is_local(url: &Url) -> bool {
    matches!(url.host_str(), Some("localhost" | "127.0.0.1"))
}

/// Two or more labels of letters, digits and inner hyphens (RFC 1123, section 2.1), in A-label form.
fn is_named(domain: &str) -> bool {
    let is_label = |label: &str| {
        (1..=MAX_LABEL).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    domain.len() <= MAX_HOST && domain.contains('.') && domain.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn rules(allow_http_localhost: bool) -> LinkRules {
        let mut origins = "https://portal.example.org, https://*.clinics.example".to_owned();
        if allow_http_localhost {
            origins += ", http://localhost:8080";
        }
        LinkRules::new(allow_http_localhost, origins.parse().unwrap()).unwrap()
    }

    #[rstest]
    #[case(
        "https://Portal.example.org/app/",
        Ok("https://portal.example.org/app")
    )]
    #[case(" https://portal.example.org:443 ", Ok("https://portal.example.org"))]
    #[case("https://north.clinics.example", Ok("https://north.clinics.example"))]
    #[case("https://portal.example.org?x=1", Err(LinkError::TooMuch))]
    #[case("https://portal.example.org#x", Err(LinkError::TooMuch))]
    #[case("https://portal.example.org:8443", Err(LinkError::PortalNotTrusted))]
    #[case("https://evil.example", Err(LinkError::PortalNotTrusted))]
    #[case(
        "https://portal.example.org.evil.example",
        Err(LinkError::PortalNotTrusted)
    )]
    #[case("http://localhost:8080", Err(LinkError::NotHttps))]
    fn portals_are_trusted_by_the_operator(
        #[case] text: &str,
        #[case] expected: Result<&str, LinkError>,
    ) {
        assert_eq!(rules(false).portal_url(text), expected.map(str::to_owned));
    }

    #[test]
    fn localhost_is_for_development() {
        let local = rules(true);
        assert_eq!(
            local.portal_url("http://localhost:8080").unwrap(),
            "http://localhost:8080"
        );
        assert_eq!(
            local.portal_url("http://localhost:8081"),
            Err(LinkError::PortalNotTrusted)
        );
        assert!(local.logo_url("http://127.0.0.1/logo.png").is_ok());
        assert_eq!(
            local.logo_url("http://localhost.evil.example"),
            Err(LinkError::NotHttps)
        );
        let origins: PortalOrigins = "http://localhost:8080".parse().unwrap();
        assert!(LinkRules::new(false, origins).is_err());
    }

    #[test]
    fn the_message_names_none_of_the_operators_origins() {
        let message = rules(false)
            .portal_url("https://evil.example")
            .unwrap_err()
            .to_string();
        assert!(!message.contains("example"), "{message}");
    }

    #[rstest]
    #[case("", LinkError::Malformed)]
    #[case("portal.example.org", LinkError::Malformed)]
    #[case("//portal.example.org", LinkError::Malformed)]
    #[case("https:portal.example.org", LinkError::Malformed)]
    #[case("https:/portal.example.org", LinkError::Malformed)]
    #[case("https:///portal.example.org", LinkError::Malformed)]
    #[case("https://", LinkError::Malformed)]
    #[case("https://exa<mple.org", LinkError::Malformed)]
    #[case("javascript:alert(1)", LinkError::Malformed)]
    #[case("javascript://a.example/%0aalert(1)", LinkError::NotHttps)]
    #[case("ftp://a.example", LinkError::NotHttps)]
    #[case("http://a.example", LinkError::NotHttps)]
    #[case("http://localhost", LinkError::NotHttps)]
    #[case("https://u:p@a.example", LinkError::TooMuch)]
    #[case("https://@a.example", LinkError::TooMuch)]
    #[case("https://:@a.example", LinkError::TooMuch)]
    #[case("https://a.example\\@b.example", LinkError::Character)]
    #[case("https:\\\\a.example", LinkError::Character)]
    #[case("https://a.example/a b", LinkError::Character)]
    #[case("https://a.exa\tmple", LinkError::Character)]
    #[case("https://a.example/\r\nx", LinkError::Character)]
    #[case("https://a.example/\0", LinkError::Character)]
    #[case("https://a.ex\u{AD}ample", LinkError::Character)]
    #[case("https://a.example/\u{200B}", LinkError::Character)]
    #[case("https://a.example/\u{202E}gpj", LinkError::Character)]
    #[case("https://localhost", LinkError::Host)]
    #[case("https://intranet", LinkError::Host)]
    #[case("https://127.0.0.1", LinkError::Host)]
    #[case("https://2130706433", LinkError::Host)]
    #[case("https://0x7f.1", LinkError::Host)]
    #[case("https://[::1]", LinkError::Host)]
    #[case("https://a.example.", LinkError::Host)]
    #[case("https://a..example", LinkError::Host)]
    #[case("https://.example", LinkError::Host)]
    #[case("https://-a.example", LinkError::Host)]
    #[case("https://a_b.example", LinkError::Host)]
    #[case("https://*.example.org", LinkError::Host)]
    fn what_is_read_in_different_ways_is_refused(#[case] text: &str, #[case] error: LinkError) {
        assert_eq!(rules(false).logo_url(text), Err(error));
    }

    #[test]
    fn urls_have_at_most_500_characters() {
        let url = |path: &str| format!("https://a.example/{path}");
        let longest = url(&"x".repeat(MAX_LENGTH - 18));
        assert_eq!(rules(false).logo_url(&longest).unwrap(), longest);
        for text in [
            url(&"x".repeat(MAX_LENGTH - 17)),
            url(&"é".repeat(100)),
            "x".repeat(1_000_000),
        ] {
            assert_eq!(rules(false).logo_url(&text), Err(LinkError::TooLong));
        }
    }

    #[rstest]
    #[case("https://app.example.org", Ok("https://app.example.org"))]
    #[case(
        "https://Bücher.example:8443/",
        Ok("https://xn--bcher-kva.example:8443")
    )]
    #[case("https://app.example.org/x", Err(LinkError::NotAnOrigin))]
    #[case("https://app.example.org/?x", Err(LinkError::NotAnOrigin))]
    fn origins_hold_no_more(#[case] text: &str, #[case] expected: Result<&str, LinkError>) {
        assert_eq!(rules(false).origin(text), expected.map(str::to_owned));
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
        let result = rules(false).return_url(
            url,
            "https://portal.example.org/base",
            &["https://app.example.org".to_owned()],
        );
        assert_eq!(result.is_ok(), accepted, "{result:?}");
    }

    proptest! {
        #[test]
        fn accepted_urls_keep_their_meaning(
            url in "https?:[/\\\\]{1,3}(u@)?[a-zA-Zé0-9_*.-]{1,12}(\\.example|localhost)?(:[0-9]{0,5})?[/?#a-z0-9é%@:\\\\. \t\u{200B}~'\"<>^|-]{0,12}",
        ) {
            if let Ok(accepted) = rules(true).logo_url(&url) {
                prop_assert_eq!(Url::parse(&accepted).unwrap(), Url::parse(url.trim()).unwrap());
                prop_assert_eq!(rules(true).logo_url(&accepted), Ok(accepted.clone()));
                prop_assert!(accepted.is_ascii() && accepted.len() <= MAX_LENGTH);
            }
        }

        #[test]
        fn plain_urls_come_back_unchanged(url in "https://[a-z]{1,9}(-[a-z0-9]{1,9})?\\.[a-z]{2,9}(:8443)?/[a-zA-Z0-9/_~%?=&#-]{0,40}") {
            prop_assert_eq!(rules(false).logo_url(&url), Ok(url));
        }

        #[test]
        fn nothing_panics(text in "(https://)?\\PC{0,60}") {
            let rules = rules(false);
            let _ = (rules.portal_url(&text), rules.origin(&text), rules.return_url(&text, &text, &[]));
        }
    }
}
