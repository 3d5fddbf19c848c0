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
    /// Reads the enhanced status code that `text`, the reply after its code, may begin with. One of another class than
    /// the code (RFC 2034, section 4) says nothing.
    #[must_use]
    pub fn new(code: u16, text: &str) -> Self {
        let enhanced = text.split_whitespace().next().and_then(parse_enhanced);
        Self {
            code,
            enhanced: enhanced.filter(|(class, ..)| u16::from(*class) == code / 100),
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

/// `class.subject.detail` (RFC 3463, section 2).
fn parse_enhanced(word: &str) -> Option<(u8, u16, u16)> {
    let mut parts = word.split('.').map(number);
    let (class, subject, detail) = (parts.next()??, parts.next()??, parts.next()??);
    let class = u8::try_from(class).ok()?;
    (matches!(class, 2 | 4 | 5) && parts.next().is_none()).then_some((class, subject, detail))
}

/// One to three digits.
fn number(text: &str) -> Option<u16> {
    let is_number = text.len() <= 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
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
    /// A rule of the relay or of the recipient's server keeps it away: about us, if it is said of many recipients
    /// (the relay does not let us send), and about this email or its recipient otherwise.
    Policy,
    /// This email cannot be delivered.
    Fail,
    /// The mailbox does not exist: write to it no more.
    DeadMailbox,
}

/// Judges a refusal. The first row that fits counts; `x` is any class, "permanent" is 5yz.
///
/// | to | reply | verdict | source |
/// |---|---|---|---|
/// | what comes before MAIL | any | relay trouble | nothing was said about an email |
/// | MAIL | 552 without enhanced code, 5.3.4, 5.2.3 | fail | RFC 1870 §6.1, RFC 3463 §3.3, §3.4: the declared size is too large |
/// | MAIL | any other, 421 among them | relay trouble | RFC 5321 §3.3: the relay knows no more than who sends, and that is the same for all emails |
/// | RCPT and later | 500, 502, 503, 504 | retry | RFC 5321 §4.2.2: about the dialogue, not about the email |
/// | | 530, 534, 535, 538 | retry | RFC 4954 §6: our relay took MAIL, so it passes on what the recipient's server told it |
/// | | x.2.2 | retry | RFC 3463 §3.3: a full mailbox "should be used as a persistent transient failure" |
/// | RCPT | 552 without enhanced code | retry | RFC 5321 §4.5.3.1.10: to be treated as 452 |
/// | RCPT and later | permanent x.1.1 | dead mailbox | RFC 3463 §3.2: the mailbox does not exist |
/// | | permanent x.1.6 | dead mailbox | RFC 3463 §3.2: it has moved, and nothing is forwarded |
/// | | permanent x.1.10 | dead mailbox | RFC 7505 §4.2: the domain says that it takes no mail |
/// | | permanent x.7.z | policy | RFC 3463 §3.8: "relay denied" and blocked senders have x.7.1 |
/// | RCPT | 550, 551, 553, 554 without enhanced code | policy | RFC 5321 §4.2.3 gives 550 for a missing mailbox and for policy alike, and relays say "relaying denied" with each of these |
/// | RCPT and later | other 5yz | fail | RFC 5321 §4.2.1: permanent. x.1.2 too (RFC 3463 §3.2: bad destination system), which a relay without DNS says of every domain |
/// | | 4yz | retry | RFC 5321 §4.2.1: transient |
///
/// A 421 after MAIL is not judged: see [`crate::mail::SendError::Interrupted`].
#[must_use]
pub fn classify(stage: Stage, reply: &Reply) -> Verdict {
    let permanent = reply.code >= 500;
    match (stage, reply.code, reply.enhanced) {
        (Stage::Mail, 552, None) | (Stage::Mail, _, Some((5, 3, 4) | (5, 2, 3))) => Verdict::Fail,
        (Stage::Connect | Stage::Mail, _, _) => Verdict::RelayTrouble,
        (_, 500 | 502..=504 | 530 | 534 | 535 | 538, _)
        | (_, _, Some((_, 2, 2)))
        | (Stage::Recipient, 552, None) => Verdict::Retry,
        (_, _, Some((5, 1, 1 | 6 | 10))) => Verdict::DeadMailbox,
        (_, _, Some((5, 7, _))) | (Stage::Recipient, 550 | 551 | 553 | 554, None) => {
            Verdict::Policy
        }
        _ if permanent => Verdict::Fail,
        _ => Verdict::Retry,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    // Before MAIL.
    #[rstest]
    #[case(Stage::Connect, 554, "no service here", Verdict::RelayTrouble)]
    #[case(Stage::Connect, 421, "4.3.2 too busy", Verdict::RelayTrouble)]
    #[case(Stage::Connect, 535, "5.7.8 bad credentials", Verdict::RelayTrouble)]
    // To MAIL: too large, or nothing can go.
    #[case(Stage::Mail, 552, "too large", Verdict::Fail)]
    #[case(Stage::Mail, 552, "5.3.4 too large", Verdict::Fail)]
    #[case(Stage::Mail, 550, "5.2.3 too large", Verdict::Fail)]
    #[case(Stage::Mail, 421, "4.3.2 shutting down", Verdict::RelayTrouble)]
    #[case(Stage::Mail, 450, "too much mail", Verdict::RelayTrouble)]
    #[case(Stage::Mail, 452, "4.3.1 no space", Verdict::RelayTrouble)]
    #[case(Stage::Mail, 454, "4.7.0 try later", Verdict::RelayTrouble)]
    #[case(Stage::Mail, 530, "5.7.0 log in first", Verdict::RelayTrouble)]
    #[case(Stage::Mail, 550, "sender refused", Verdict::RelayTrouble)]
    #[case(Stage::Mail, 550, "5.1.1 sender unknown", Verdict::RelayTrouble)]
    #[case(Stage::Mail, 552, "5.2.2 sender over quota", Verdict::RelayTrouble)]
    #[case(Stage::Mail, 553, "5.7.1 not your address", Verdict::RelayTrouble)]
    // About the dialogue.
    #[case(Stage::Recipient, 500, "5.5.1 what?", Verdict::Retry)]
    #[case(Stage::Recipient, 503, "5.5.1 MAIL first", Verdict::Retry)]
    #[case(Stage::Data, 502, "not here", Verdict::Retry)]
    #[case(Stage::Data, 504, "5.5.4 not like this", Verdict::Retry)]
    #[case(Stage::Recipient, 501, "5.1.3 no address", Verdict::Fail)]
    // What the recipient's server says, passed on by the relay.
    #[case(Stage::Recipient, 535, "5.7.8 bad credentials", Verdict::Retry)]
    #[case(Stage::Data, 530, "5.7.0 log in first", Verdict::Retry)]
    #[case(Stage::Data, 534, "5.7.9 too weak", Verdict::Retry)]
    #[case(Stage::Content, 538, "5.7.11 encryption required", Verdict::Retry)]
    #[case(Stage::Content, 454, "4.7.0 try later", Verdict::Retry)]
    // The mailbox does not exist.
    #[case(Stage::Recipient, 550, "5.1.1 no such user", Verdict::DeadMailbox)]
    #[case(Stage::Content, 550, "5.1.1 no such user", Verdict::DeadMailbox)]
    #[case(Stage::Recipient, 551, "5.1.6 moved", Verdict::DeadMailbox)]
    #[case(Stage::Recipient, 556, "5.1.10 null MX", Verdict::DeadMailbox)]
    // Not said clearly enough.
    #[case(Stage::Recipient, 550, "no such user", Verdict::Policy)]
    #[case(Stage::Recipient, 550, "relay not permitted", Verdict::Policy)]
    #[case(Stage::Recipient, 551, "we do not relay", Verdict::Policy)]
    #[case(Stage::Recipient, 553, "not in my list of rcpthosts", Verdict::Policy)]
    #[case(Stage::Recipient, 554, "relay access denied", Verdict::Policy)]
    #[case(Stage::Content, 554, "rejected", Verdict::Fail)]
    #[case(Stage::Recipient, 550, "5.1.2 no such domain", Verdict::Fail)]
    #[case(Stage::Recipient, 550, "5.2.1 disabled", Verdict::Fail)]
    // A transient reply never condemns a mailbox, whatever its enhanced code says.
    #[case(Stage::Recipient, 450, "4.1.1 unverified", Verdict::Retry)]
    #[case(Stage::Recipient, 450, "5.1.1 no such user", Verdict::Retry)]
    #[case(Stage::Recipient, 550, "4.1.1 no such user", Verdict::Policy)]
    // Policy.
    #[case(Stage::Recipient, 554, "5.7.1 relay access denied", Verdict::Policy)]
    #[case(Stage::Data, 554, "5.7.1 no", Verdict::Policy)]
    #[case(Stage::Content, 550, "5.7.26 unauthenticated", Verdict::Policy)]
    #[case(Stage::Recipient, 454, "4.7.1 relay access denied", Verdict::Retry)]
    // Full.
    #[case(Stage::Recipient, 552, "5.2.2 over quota", Verdict::Retry)]
    #[case(Stage::Content, 554, "5.2.2 over quota", Verdict::Retry)]
    #[case(Stage::Recipient, 552, "too many", Verdict::Retry)]
    // The others.
    #[case(Stage::Content, 552, "too large", Verdict::Fail)]
    #[case(Stage::Content, 552, "5.3.4 too large", Verdict::Fail)]
    #[case(Stage::Content, 554, "rejected", Verdict::Fail)]
    #[case(Stage::Recipient, 450, "4.2.0 greylisted", Verdict::Retry)]
    #[case(Stage::Content, 451, "4.3.0 try later", Verdict::Retry)]
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
    }

    #[rstest]
    #[case("5.1.1", "550 5.1.1")]
    #[case("5.01.001 x", "550 5.1.1")]
    #[case("5.999.999 x", "550 5.999.999")]
    #[case("5.1 x", "550")]
    #[case("5.1.1.1 x", "550")]
    #[case("5.1.1000 x", "550")]
    #[case("5..1 x", "550")]
    #[case("5.+1.1 x", "550")]
    #[case("+5.1.1 x", "550")]
    #[case("3.1.1 x", "550")]
    #[case("4.1.1 of another class", "550")]
    fn enhanced_codes_are_read_strictly(#[case] text: &str, #[case] status: &str) {
        assert_eq!(Reply::new(550, text).to_string(), status);
    }
}
