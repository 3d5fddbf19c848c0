//! What both services know of email addresses.
//!
//! Each has a type of its own, because they judge at different times. account-svc's `Email` judges what a person
//! types, by rules that may become stricter. notify-svc's `Recipient` judges what SMTP can carry: it must go on
//! sending to addresses that account-svc accepted under earlier rules.

/// Most bytes of a local part (RFC 5321, section 4.5.3.1.1).
pub const MAX_LOCAL_PART: usize = 64;

/// Most bytes of an address (RFC 5321, section 4.5.3.1.3, less the angle brackets of the path).
pub const MAX_ADDRESS: usize = 254;

/// The form that addresses are compared in: in lower case as a whole. RFC 5321, section 2.4, lets servers tell
/// the cases of a local part apart; none in use does, and people do not. Dots and `+tags` are left alone, for what
/// they mean differs from server to server.
/// ```
/// # use usher_runtime::email::canonical;
/// assert_eq!(canonical("Ann.Lee@Example.org"), "ann.lee@example.org");
/// ```
#[must_use]
pub fn canonical(address: &str) -> String {
    address.to_lowercase()
}

/// An address as it may be shown to people: enough to recognize one's own, too little to learn another's.
/// ```
/// # use usher_runtime::email::masked;
/// assert_eq!(masked("ann@example.org"), "a***@example.org");
/// assert_eq!(masked("no address"), "***");
/// ```
#[must_use]
pub fn masked(address: &str) -> String {
    let Some((local_part, domain)) = address.rsplit_once('@') else {
        return "***".to_owned();
    };
    let first: String = local_part.chars().take(1).collect();
    format!("{first}***@{domain}")
}
