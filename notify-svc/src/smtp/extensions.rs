//! What a relay offers in its answer to EHLO (RFC 5321, section 4.1.1.1).

use super::reply::ServerReply;

/// Keywords with their parameters, in upper case.
#[derive(Debug, Default)]
pub struct Extensions(Vec<String>);

impl Extensions {
    /// Reads the answer to EHLO: its first line is a greeting, each other one an extension.
    pub fn from_reply(reply: &ServerReply) -> Self {
        let lines = reply.lines.iter().skip(1);
        Self(lines.map(|line| line.to_ascii_uppercase()).collect())
    }

    /// Whether `keyword` is offered, in upper case.
    pub fn offers(&self, keyword: &str) -> bool {
        self.parameters(keyword).next().is_some()
    }

    /// Whether AUTH is offered with `mechanism`, in upper case.
    pub fn offers_login(&self, mechanism: &str) -> bool {
        self.parameters("AUTH")
            .any(|mut parameters| parameters.any(|parameter| parameter == mechanism))
    }

    /// Largest email that is taken, in bytes; `None` if it is not said (RFC 1870, section 4: nor by 0).
    pub fn size_limit(&self) -> Option<u64> {
        self.parameters("SIZE")
            .find_map(|mut parameters| parameters.next()?.parse().ok())
            .filter(|limit| *limit > 0)
    }

    /// The parameters of each line with `keyword`. Old servers write `AUTH=PLAIN`, some beside `AUTH PLAIN`.
    fn parameters(&self, keyword: &str) -> impl Iterator<Item = impl Iterator<Item = &str>> {
        self.0.iter().filter_map(move |line| {
            let mut words = line.split([' ', '\t', '=']).filter(|word| !word.is_empty());
            (words.next() == Some(keyword)).then_some(words)
        })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn extensions(lines: &[&str]) -> Extensions {
        let greeting = ["relay.example PIPELINING"].iter();
        Extensions::from_reply(&ServerReply {
            code: 250,
            lines: greeting.chain(lines).map(ToString::to_string).collect(),
        })
    }

    #[test]
    fn keywords_are_read_in_any_case() {
        let offered = extensions(&["pipelining", "8BitMime", "STARTTLS "]);
        assert!(offered.offers("PIPELINING") && offered.offers("8BITMIME"));
        assert!(offered.offers("STARTTLS") && !offered.offers("SMTPUTF8"));
        assert!(
            !extensions(&[]).offers("PIPELINING"),
            "the greeting is none"
        );
    }

    #[test]
    fn ways_to_log_in_are_read_in_both_notations() {
        let offered = extensions(&["AUTH CRAM-MD5 Plain", "AUTH=LOGIN"]);
        assert!(offered.offers_login("PLAIN") && offered.offers_login("LOGIN"));
        assert!(!offered.offers_login("XOAUTH2"));
        assert!(!extensions(&["AUTHPLAIN"]).offers_login("PLAIN"));
    }

    #[rstest]
    #[case("SIZE 1000", Some(1000))]
    #[case("size 0", None)]
    #[case("SIZE", None)]
    #[case("SIZE many", None)]
    #[case("SIZE 99999999999999999999999999", None)]
    fn a_limit_of_size_is_read(#[case] line: &str, #[case] limit: Option<u64>) {
        assert_eq!(extensions(&[line]).size_limit(), limit);
    }
}
