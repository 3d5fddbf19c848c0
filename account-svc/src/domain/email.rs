//! Email addresses.

use std::fmt;

use email_address::{EmailAddress, Options};
use usher_runtime::email::{MAX_ADDRESS, MAX_LOCAL_PART, canonical, masked};

/// An address that mail can be sent to, as a person typed it. `Debug` shows it masked.
///
/// The domain is in A-label form (RFC 5890), so that every mail server can read it. Local parts outside
/// ASCII would need SMTPUTF8 (RFC 6531) on the whole way and are refused, as are quoted local parts,
/// address literals and domains without a dot.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Email {
    address: String,
    canonical: String,
}

/// Why an address was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EmailError {
    /// Nothing there.
    #[error("empty: leave it out, or give an address like `name@example.org`")]
    Missing,
    /// No `@`, or nothing on one side of it.
    #[error("not an email address; expected `name@example.org`")]
    Malformed,
    /// Too long as a whole or before the `@`.
    #[error(
        "too long; at most {MAX_LOCAL_PART} bytes before the `@` and {MAX_ADDRESS} in all are accepted"
    )]
    TooLong,
    /// Not an internet domain.
    #[error("the part after the `@` is not an internet domain")]
    Domain,
    /// The local part holds characters that mail servers do not accept everywhere.
    #[error(
        "the part before the `@` may hold ASCII letters, digits and !#$%&'*+-/=?^_`{{|}}~ with single dots between"
    )]
    LocalPart,
}

impl Email {
    /// Parses an address as a person typed it.
    ///
    /// # Errors
    /// Says which part is at fault.
    pub fn parse(text: &str) -> Result<Self, EmailError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(EmailError::Missing);
        }
        // Before any real work, so that it is bounded. An A-label can be longer than what it stands for,
        // but never shorter.
        if text.chars().count() > MAX_ADDRESS {
            return Err(EmailError::TooLong);
        }
        let (local_part, domain) = text.rsplit_once('@').ok_or(EmailError::Malformed)?;
        if local_part.is_empty() || domain.is_empty() {
            return Err(EmailError::Malformed);
        }
        if !local_part.is_ascii() || local_part.starts_with('"') {
            return Err(EmailError::LocalPart);
        }
        if local_part.len() > MAX_LOCAL_PART {
            return Err(EmailError::TooLong);
        }
        let domain = idna::domain_to_ascii_strict(domain).map_err(|_| EmailError::Domain)?;
        if !domain.contains('.') || is_address_literal(&domain) {
            return Err(EmailError::Domain);
        }
        let address = format!("{local_part}@{domain}");
        if address.len() > MAX_ADDRESS {
            return Err(EmailError::TooLong);
        }
        let options = Options::default()
            .with_required_tld()
            .without_domain_literal()
            .without_display_text();
        EmailAddress::parse_with_options(&address, options).map_err(|_| EmailError::LocalPart)?;
        Ok(Self::stored(address))
    }

    /// An address that was parsed when it was stored: a rule that became stricter since must not lose it.
    #[must_use]
    pub fn stored(address: String) -> Self {
        let canonical = canonical(&address);
        Self { address, canonical }
    }

    /// The address for sending: the local part as typed, the domain in A-label form.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The form that addresses are compared in.
    #[must_use]
    pub fn canonical(&self) -> &str {
        &self.canonical
    }
}

/// Whether a domain ends in digits: the WHATWG URL standard, and so most software, reads that as an IPv4
/// address.
fn is_address_literal(domain: &str) -> bool {
    domain
        .rsplit('.')
        .next()
        .is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()))
}

impl fmt::Debug for Email {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&masked(&self.address))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(
        "Ann.Lee+x@Example.ORG",
        "Ann.Lee+x@example.org",
        "ann.lee+x@example.org"
    )]
    #[case("o'brien@example.ie", "o'brien@example.ie", "o'brien@example.ie")]
    #[case(
        "info@bücher.example",
        "info@xn--bcher-kva.example",
        "info@xn--bcher-kva.example"
    )]
    #[case(
        "a@例え.テスト",
        "a@xn--r8jz45g.xn--zckzah",
        "a@xn--r8jz45g.xn--zckzah"
    )]
    #[case(" a@b.c1 ", "a@b.c1", "a@b.c1")]
    fn addresses_are_normalized(
        #[case] typed: &str,
        #[case] address: &str,
        #[case] canonical: &str,
    ) {
        let email = Email::parse(typed).unwrap();
        assert_eq!((email.address(), email.canonical()), (address, canonical));
    }

    #[rstest]
    #[case("", EmailError::Missing)]
    #[case("ann", EmailError::Malformed)]
    #[case("@example.org", EmailError::Malformed)]
    #[case("ann@", EmailError::Malformed)]
    #[case("ann@localhost", EmailError::Domain)]
    #[case("ann@[127.0.0.1]", EmailError::Domain)]
    #[case("ann@127.0.0.1", EmailError::Domain)]
    #[case("ann@exa mple.org", EmailError::Domain)]
    #[case("ann@-example.org", EmailError::Domain)]
    #[case("ann..lee@example.org", EmailError::LocalPart)]
    #[case("ann lee@example.org", EmailError::LocalPart)]
    #[case("Ann <ann@example.org>", EmailError::Domain)]
    #[case("\"ann\"@example.org", EmailError::LocalPart)]
    #[case("zoë@example.org", EmailError::LocalPart)]
    #[case("ann\r\nbcc:x@example.org", EmailError::LocalPart)]
    fn what_mail_cannot_reach_is_refused(#[case] typed: &str, #[case] error: EmailError) {
        assert_eq!(Email::parse(typed), Err(error));
    }

    #[test]
    fn long_addresses_are_refused() {
        let local_part = "a".repeat(65);
        assert_eq!(
            Email::parse(&format!("{local_part}@example.org")),
            Err(EmailError::TooLong)
        );
        assert_eq!(
            Email::parse(&"a@".repeat(100_000)),
            Err(EmailError::TooLong)
        );
    }

    #[test]
    fn stored_addresses_are_taken_as_they_are() {
        // Refused today.
        let email = Email::stored("Zoë@Example.org".to_owned());
        assert_eq!(
            (email.address(), email.canonical()),
            ("Zoë@Example.org", "zoë@example.org")
        );
    }

    #[test]
    fn debug_shows_no_whole_address() {
        let email = Email::parse("ann@example.org").unwrap();
        assert_eq!(format!("{email:?}"), "a***@example.org");
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_is_stable(text in "\\PC{0,300}") {
            if let Ok(email) = Email::parse(&text) {
                let again = Email::parse(email.address()).unwrap();
                prop_assert_eq!(&again, &email);
                prop_assert_eq!(Email::stored(email.address().to_owned()), email);
            }
        }
    }
}
