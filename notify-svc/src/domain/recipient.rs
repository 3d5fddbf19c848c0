//! Addresses of recipients.

use std::fmt;

use lettre::Address;
use sqlx::{
    Decode, Postgres,
    error::BoxDynError,
    postgres::{PgTypeInfo, PgValueRef},
};
use usher_runtime::email::{MAX_ADDRESS, MAX_LOCAL_PART, canonical, masked};

/// Why an address was refused. Says nothing of the address itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRecipient {
    /// Not an address.
    #[error("not an email address (RFC 5321)")]
    Malformed,
    /// Longer than SMTP can carry.
    #[error("longer than an email address may be (RFC 5321, section 4.5.3.1)")]
    TooLong,
    /// The domain is written in Unicode.
    #[error("the domain is not in A-label form")]
    DomainNotAscii,
}

/// An address that SMTP can carry. `Debug` shows it masked.
#[derive(Clone, PartialEq, Eq)]
pub struct Recipient(Address);

impl Recipient {
    /// Reads an address whose domain is in A-label form. The domain is taken in lower case (RFC 5321,
    /// section 2.4): `Ann@Example.org` and `Ann@example.org` are one address.
    ///
    /// # Errors
    /// If no email can be sent to it.
    pub fn parse(text: &str) -> Result<Self, InvalidRecipient> {
        let address: Address = text.parse().map_err(|_| InvalidRecipient::Malformed)?;
        if text.len() > MAX_ADDRESS || address.user().len() > MAX_LOCAL_PART {
            return Err(InvalidRecipient::TooLong);
        }
        if !address.domain().is_ascii() {
            return Err(InvalidRecipient::DomainNotAscii);
        }
        // Nothing that could end a line of SMTP or of a header.
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(InvalidRecipient::Malformed);
        }
        let domain = address.domain().to_ascii_lowercase();
        Address::new(address.user(), domain)
            .map(Self)
            .map_err(|_| InvalidRecipient::Malformed)
    }

    /// The address for SMTP.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.0
    }

    /// The address as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_ref()
    }

    /// The form that addresses are compared in.
    #[must_use]
    pub fn canonical(&self) -> String {
        canonical(self.as_str())
    }

    /// The domain, in lower case.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.0.domain()
    }

    /// The address for people who may not see it: `a***@example.org`.
    #[must_use]
    pub fn masked(&self) -> String {
        masked(self.as_str())
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.masked())
    }
}

impl sqlx::Type<Postgres> for Recipient {
    fn type_info() -> PgTypeInfo {
        <str as sqlx::Type<Postgres>>::type_info()
    }

    fn compatible(column: &PgTypeInfo) -> bool {
        <str as sqlx::Type<Postgres>>::compatible(column)
    }
}

impl Decode<'_, Postgres> for Recipient {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        let text = <&str as Decode<Postgres>>::decode(value)?;
        Ok(Self::parse(text)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_compared_in_lower_case_and_shown_masked() {
        let recipient = Recipient::parse("Ann.O'Hara@Example.org").unwrap();
        assert_eq!(recipient.canonical(), "ann.o'hara@example.org");
        assert_eq!(recipient.masked(), "A***@example.org");
        assert_eq!(format!("{recipient:?}"), "A***@example.org");
        assert_eq!(recipient.domain(), "example.org");
    }

    #[test]
    fn what_smtp_cannot_carry_is_refused() {
        for text in [
            "",
            "ann",
            "ann@",
            "@example.org",
            "ann@example.org\r\nRCPT TO:<x@y>",
        ] {
            assert_eq!(
                Recipient::parse(text),
                Err(InvalidRecipient::Malformed),
                "{text:?}"
            );
        }
        assert_eq!(
            Recipient::parse("ann@bücher.example"),
            Err(InvalidRecipient::DomainNotAscii)
        );
        let long = format!("{}@example.org", "a".repeat(65));
        assert!(Recipient::parse(&long).is_err());
    }
}
