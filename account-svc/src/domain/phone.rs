//! Phone numbers in E.164.

/// Why a number was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not an E.164 number; expected `+`, the country code and the number, 7 to 15 digits without spaces"
)]
pub struct PhoneError;

/// A number in E.164: `+` and 7 to 15 digits, the first not 0 (ITU-T E.164, section 6).
///
/// # Errors
/// If it is anything else.
pub fn parse(text: &str) -> Result<String, PhoneError> {
    let text = text.trim();
    let digits = text.strip_prefix('+').ok_or(PhoneError)?;
    let is_number = (7..=15).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && !digits.starts_with('0');
    if is_number {
        Ok(text.to_owned())
    } else {
        Err(PhoneError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_e164_is_accepted() {
        assert_eq!(parse(" +33123456789 ").unwrap(), "+33123456789");
        for text in [
            "",
            "0123456789",
            "+0123456789",
            "+33 1 23",
            "+12345",
            "+1234567890123456",
        ] {
            assert_eq!(parse(text), Err(PhoneError), "{text}");
        }
    }
}
