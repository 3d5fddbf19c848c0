//! Which origins are trusted with tokens.
//!
//! The link in an email brings its token to the portal that it points to, and whoever holds the token of an
//! activation link chooses the password of a Person who may have accounts at other organizations. So it is not
//! an organization that decides who receives tokens, but the operator of the platform.

use std::{str::FromStr, sync::Arc};

use url::Url;

use super::link;

/// The origins that are trusted with tokens. Cheap to clone.
///
/// Written as a list with commas: exact origins (`https://portal.example.org`, with `:port` where it is not
/// 443), and `https://*.example.org` for every host with exactly one label more. The latter trusts whoever can
/// get a name under `example.org`; it is not for domains under which anybody can (`*.co.uk`, `*.github.io`).
/// `http` is accepted on `localhost` and `127.0.0.1` alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortalOrigins(Arc<[Pattern]>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    /// Whether the host must have one label before that of `origin`.
    is_wildcard: bool,
    /// Scheme, host and port.
    origin: Url,
}

/// Why a list of origins was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortalOriginsError {
    /// Nothing there, or nothing between two commas.
    #[error(
        "has an empty entry; expected origins like `https://portal.example.org`, with commas between"
    )]
    Empty,
    /// Not an origin.
    #[error(
        "`{entry}` is not an origin: {error}; expected `https://portal.example.org`, or `https://*.example.org` for \
         every host with one label more"
    )]
    Malformed {
        /// The entry.
        entry: String,
        /// What is wrong.
        error: link::LinkError,
    },
    /// Unencrypted, though only encrypted ones are accepted.
    #[error(
        "`{entry}` is not encrypted; `http` is for development, where ALLOW_HTTP_LOCALHOST is set"
    )]
    NotHttps {
        /// The entry.
        entry: String,
    },
}

impl FromStr for PortalOrigins {
    type Err = PortalOriginsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split(',')
            .map(Pattern::parse)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl PortalOrigins {
    /// Whether a URL is on one of these origins. Scheme, host and port are compared whole.
    #[must_use]
    pub fn allows(&self, url: &str) -> bool {
        link::parse(url).is_ok_and(|url| self.allows_url(&url))
    }

    /// As [`allows`](Self::allows), for a URL that [`link::parse`] accepted.
    pub(super) fn allows_url(&self, url: &Url) -> bool {
        self.0.iter().any(|pattern| pattern.matches(url))
    }

    /// Refuses origins that are not encrypted.
    pub(super) fn require_https(&self) -> Result<(), PortalOriginsError> {
        match self
            .0
            .iter()
            .find(|pattern| pattern.origin.scheme() != "https")
        {
            None => Ok(()),
            Some(pattern) => Err(PortalOriginsError::NotHttps {
                entry: pattern.origin.origin().ascii_serialization(),
            }),
        }
    }
}

impl Pattern {
    fn parse(entry: &str) -> Result<Self, PortalOriginsError> {
        const WILDCARD: &str = "https://*.";
        let entry = entry.trim();
        if entry.is_empty() {
            return Err(PortalOriginsError::Empty);
        }
        let malformed = |error| PortalOriginsError::Malformed {
            entry: entry.to_owned(),
            error,
        };
        let parent = entry
            .split_at_checked(WILDCARD.len())
            .filter(|(start, _)| start.eq_ignore_ascii_case(WILDCARD))
            .map(|(_, parent)| format!("https://{parent}"));
        // The parent of a wildcard needs a dot like every host, so that `*.org` is refused.
        let origin = link::parse(parent.as_deref().unwrap_or(entry)).map_err(malformed)?;
        if !link::is_origin(&origin) {
            return Err(malformed(link::LinkError::NotAnOrigin));
        }
        Ok(Self {
            is_wildcard: parent.is_some(),
            origin,
        })
    }

    fn matches(&self, url: &Url) -> bool {
        let (Some(host), Some(wanted)) = (url.host_str(), self.origin.host_str()) else {
            return false;
        };
        let is_host = if self.is_wildcard {
            host.split_once('.')
                .is_some_and(|(_, parent)| parent == wanted)
        } else {
            host == wanted
        };
        is_host
            && url.scheme() == self.origin.scheme()
            && url.port_or_known_default() == self.origin.port_or_known_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn origins() -> PortalOrigins {
        "https://portal.example.org, HTTPS://*.Clinics.example,https://app.example.org:8443,\
         https://bücher.example,http://localhost:8080,http://127.0.0.1"
            .parse()
            .unwrap()
    }

    #[rstest]
    #[case("https://portal.example.org")]
    #[case("https://portal.example.org/app/x?y#z")]
    #[case("https://portal.example.org:443")]
    #[case("HTTPS://PORTAL.EXAMPLE.ORG/App")]
    #[case("https://north.clinics.example/")]
    #[case("https://NORTH.clinics.example:443/")]
    #[case("https://app.example.org:8443")]
    #[case("https://bücher.example")]
    #[case("https://xn--bcher-kva.example")]
    #[case("http://localhost:8080/portal")]
    #[case("http://127.0.0.1")]
    fn trusted_origins_are_allowed(#[case] url: &str) {
        assert!(origins().allows(url));
    }

    #[rstest]
    #[case("")]
    #[case("portal.example.org")]
    #[case("http://portal.example.org")]
    #[case("https://portal.example.org:8443")]
    #[case("https://app.example.org")]
    #[case("https://evil.example/https://portal.example.org")]
    #[case("https://evil.example/?https://portal.example.org")]
    #[case("https://evil.example#https://portal.example.org")]
    #[case("https://portal.example.org@evil.example")]
    #[case("https://portal.example.org:443@evil.example")]
    #[case("https://evil.example\\@portal.example.org")]
    #[case("https://u@portal.example.org")]
    #[case("https://portal.example.org.")]
    #[case("https://portal.example.org.evil.example")]
    #[case("https://evilportal.example.org")]
    #[case("https://x.portal.example.org")]
    #[case("https://portal..example.org")]
    #[case("https://example.org")]
    #[case("https://clinics.example")]
    #[case("https://.clinics.example")]
    #[case("https://..clinics.example")]
    #[case("https://a.b.clinics.example")]
    #[case("https://a.clinics.example.")]
    #[case("https://a.clinics.example:8443")]
    #[case("http://a.clinics.example")]
    #[case("https://evilclinics.example")]
    #[case("https://*.clinics.example")]
    #[case("https://a.clinics.example.evil.example")]
    #[case("http://localhost")]
    #[case("https://localhost:8080")]
    #[case("http://localhost:8080@evil.example")]
    #[case("http://127.0.0.2")]
    #[case("http://[::1]")]
    #[case("https:portal.example.org")]
    #[case("https:///portal.example.org")]
    #[case("https://portal.exa\tmple.org")]
    fn others_are_not(#[case] url: &str) {
        assert!(!origins().allows(url));
    }

    #[rstest]
    #[case("")]
    #[case(" , ")]
    #[case("https://a.example,")]
    #[case("*")]
    #[case("portal.example.org")]
    #[case("*.example.org")]
    #[case("https://*")]
    #[case("https://*.org")]
    #[case("https://*.localhost")]
    #[case("https://*.*.example.org")]
    #[case("https://a.*.example.org")]
    #[case("https://a*.example.org")]
    #[case("https://**.example.org")]
    #[case("https://*..example.org")]
    #[case("https://*.1.2.3.4")]
    #[case("https://10.0.0.1")]
    #[case("https://[2001:db8::1]")]
    #[case("http://portal.example.org")]
    #[case("http://*.localhost")]
    #[case("http://*.example.org")]
    #[case("https://localhost")]
    #[case("https://u@portal.example.org")]
    #[case("https://portal.example.org/app")]
    #[case("https://portal.example.org?x")]
    #[case("https://*.example.org/app")]
    #[case("https://portal.example.org.")]
    #[case("https://portal.example.org:99999")]
    #[case("https://a.example https://b.example")]
    fn faulty_lists_are_refused(#[case] text: &str) {
        assert!(text.parse::<PortalOrigins>().is_err());
    }

    #[test]
    fn the_faulty_entry_is_named() {
        let error = "https://a.example, https://*.org"
            .parse::<PortalOrigins>()
            .unwrap_err();
        assert!(error.to_string().contains("`https://*.org`"), "{error}");
        let local: PortalOrigins = "https://a.example,http://localhost:1".parse().unwrap();
        let error = local.require_https().unwrap_err();
        assert!(
            error.to_string().contains("`http://localhost:1`"),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn only_whole_origins_match(
            label in "[a-z0-9]{1,8}", junk in "[a-z.@/:?#*\\\\-]{1,8}", port in 1..=u16::MAX,
        ) {
            let list: PortalOrigins = "https://portal.example.org,https://*.clinics.example".parse().unwrap();
            let wildcard = format!("https://{label}.clinics.example");
            prop_assert!(list.allows(&wildcard));
            prop_assert_eq!(list.allows(&format!("{wildcard}:{port}")), port == 443);
            // Whatever comes before the host, or after it before the path, is another origin or no URL; a port
            // cannot come out of these characters.
            let after = format!("https://portal.example.org{junk}");
            let is_past_host = junk.starts_with(['/', '?', '#']) || junk.starts_with(":/")
                || junk.starts_with(":?") || junk.starts_with(":#") || junk == ":";
            prop_assert!(!list.allows(&after) || is_past_host, "{}", after);
            let before = format!("https://{junk}portal.example.org");
            prop_assert!(!list.allows(&before), "{}", before);
        }

        #[test]
        fn what_is_allowed_is_on_an_origin_of_the_list(url in "(https?://)?[a-z.@:/\\\\]{0,9}(portal|north)?\\.?(example\\.org|clinics\\.example)\\PC{0,9}") {
            let list: PortalOrigins = "https://portal.example.org,https://*.clinics.example".parse().unwrap();
            if list.allows(&url) {
                let url = Url::parse(&url).unwrap();
                let host = url.host_str().unwrap();
                prop_assert!(host == "portal.example.org"
                    || host.strip_suffix(".clinics.example").is_some_and(|label| !label.contains('.')));
            }
        }

        #[test]
        fn parsing_never_panics(text in "(https://\\*\\.)?\\PC{0,40}") {
            let _ = text.parse::<PortalOrigins>();
        }
    }
}
