//! What a relay's reply means for an email.

use std::fmt;

/// A reply of the relay. Its text is dropped: it may hold an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Reply code, for example 550.
    pub code: u16,
    /// Enhanced status code (RFC 3463) as (class, subject, detail), for example (5, 1, 1).
    pub enhanced: Option<(u8, u16, u16)>,
}

impl Reply {
    /// Reads the enhanced status code that `text`, the reply after its code, may begin with.
    #[must_use]
    pub fn new(code: u16, text: &str) -> Self {
        Self {
            code,
            enhanced: text.split_whitespace().next().and_then(parse_enhanced),
        }
    }
}

/// `550 5.1.1`, as in `smtp_status` of the contract.
impl fmt::Display for Reply {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.code)?;
        if let Some((class, subject, detail)) = self.enhanced {
            write!(formatter, " {class}.{subject}.{detail}")?;
        }
        Ok(())
    }
}

fn parse_enhanced(word: &str) -> Option<(u8, u16, u16)> {
    let mut parts = word.split('.');
    let class = parts
        .next()?
        .parse()
        .ok()
        .filter(|class| matches!(class, 2 | 4 | 5))?;
    let subject = parts
        .next()?
        .parse()
        .ok()
        .filter(|subject| *subject < 1000)?;
    let detail = parts.next()?.parse().ok().filter(|detail| *detail < 1000)?;
    parts.next().is_none().then_some((class, subject, detail))
}

/// Which command was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Greeting, EHLO, STARTTLS or AUTH: nothing of the email was sent yet.
    Connect,
    /// MAIL FROM.
    Mail,
    /// RCPT TO.
    Recipient,
    /// DATA, before the content.
    Data,
    /// The content, after its final dot.
    Content,
}

/// What to do with an email that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The relay refuses us, not the email: all emails wait.
    RelayTrouble,
    /// Try this email again later.
    Retry,
    /// This email cannot be delivered.
    Fail,
    /// The mailbox does not exist: write to it no more.
    DeadMailbox,
}

/// Judges a refusal.
///
/// | reply | verdict | source |
/// |---|---|---|
/// | anything before MAIL | relay trouble | nothing was said about an email |
/// | 530, 534, 535, 538, 454 4.7.0 to MAIL | relay trouble | RFC 4954 §6, RFC 3207 §4: our login or our TLS is at fault |
/// | 530, 534, 535, 538 later | retry | our relay took MAIL: it passes on what the recipient's server told it |
/// | x.1.1 | dead mailbox | RFC 3463 §3.2: bad destination mailbox address |
/// | x.1.10 | dead mailbox | RFC 7505 §4.2: the domain says that it takes no mail |
/// | 550 to RCPT, no enhanced code | dead mailbox | RFC 5321 §4.2.3: mailbox unavailable, for example not found |
/// | 5yz with x.2.2 | retry | RFC 3463 §3.3: mailbox full "should be used as a persistent transient failure" |
/// | 552 to RCPT, no enhanced code | retry | RFC 5321 §4.5.3.1.10: to be treated as 452 |
/// | 4yz, 421 among them | retry | RFC 5321 §4.2.1: transient |
/// | other 5yz | fail | RFC 5321 §4.2.1: permanent; 552 after the content is RFC 1870 §6.3, too large |
#[must_use]
pub fn classify(stage: Stage, reply: &Reply) -> Verdict {
    let permanent = reply.code >= 500;
    match (stage, reply.code, reply.enhanced) {
        (Stage::Connect, _, _)
        | (Stage::Mail, 530 | 534 | 535 | 538, _)
        | (Stage::Mail, 454, Some((_, 7, _))) => Verdict::RelayTrouble,
        (_, _, Some((_, 1, 1 | 10))) if permanent => Verdict::DeadMailbox,
        (Stage::Recipient, 550, None) => Verdict::DeadMailbox,
        (_, 530 | 534 | 535 | 538, _) | (_, _, Some((_, 2, 2))) | (Stage::Recipient, 552, None) => {
            Verdict::Retry
        }
        _ if permanent => Verdict::Fail,
        _ => Verdict::Retry,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(Stage::Connect, 554, "no service here", Verdict::RelayTrouble)]
    #[case(
        Stage::Mail,
        530,
        "5.7.0 authentication required",
        Verdict::RelayTrouble
    )]
    #[case(Stage::Mail, 454, "4.7.0 try later", Verdict::RelayTrouble)]
    // What the recipient's server says, passed on by the relay.
    #[case(Stage::Recipient, 535, "5.7.8 bad credentials", Verdict::Retry)]
    #[case(Stage::Data, 530, "5.7.0 authentication required", Verdict::Retry)]
    #[case(Stage::Content, 454, "4.7.0 try later", Verdict::Retry)]
    #[case(Stage::Recipient, 550, "5.1.1 no such user", Verdict::DeadMailbox)]
    #[case(Stage::Recipient, 556, "5.1.10 null MX", Verdict::DeadMailbox)]
    #[case(Stage::Recipient, 550, "no such user", Verdict::DeadMailbox)]
    #[case(Stage::Content, 550, "5.1.1 no such user", Verdict::DeadMailbox)]
    #[case(Stage::Recipient, 550, "5.7.1 blocked by policy", Verdict::Fail)]
    #[case(Stage::Mail, 550, "sender refused", Verdict::Fail)]
    #[case(Stage::Recipient, 552, "5.2.2 over quota", Verdict::Retry)]
    #[case(Stage::Recipient, 552, "too many", Verdict::Retry)]
    #[case(Stage::Content, 552, "5.3.4 too large", Verdict::Fail)]
    #[case(Stage::Recipient, 450, "4.2.0 greylisted", Verdict::Retry)]
    #[case(Stage::Mail, 421, "4.3.2 shutting down", Verdict::Retry)]
    #[case(Stage::Content, 554, "rejected", Verdict::Fail)]
    // A transient reply never condemns a mailbox, whatever its enhanced code says.
    #[case(Stage::Recipient, 450, "4.1.1 unverified", Verdict::Retry)]
    fn replies_are_judged(
        #[case] stage: Stage,
        #[case] code: u16,
        #[case] text: &str,
        #[case] expected: Verdict,
    ) {
        assert_eq!(classify(stage, &Reply::new(code, text)), expected);
    }

    #[test]
    fn a_status_shows_no_text() {
        assert_eq!(
            Reply::new(550, "5.1.1 <ann@example.org> unknown").to_string(),
            "550 5.1.1"
        );
        assert_eq!(
            Reply::new(550, "<ann@example.org> unknown").to_string(),
            "550"
        );
        assert_eq!(Reply::new(550, "5.1 x").to_string(), "550");
    }
}
