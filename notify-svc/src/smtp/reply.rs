//! Replies of a relay (RFC 5321, section 4.2): read leniently, judged strictly.

use std::mem;

use crate::domain::Reply;

/// Longest reply, in bytes, line ends included. RFC 5321, section 4.5.3.1.5, has 512 for each line; longer lines are
/// read, but a relay could send one without an end.
const MAX_REPLY_BYTES: usize = 32 * 1024;

/// Why bytes are no reply: the connection is out of step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// A line does not begin with a code.
    NotAReply,
    /// It is longer than [`MAX_REPLY_BYTES`].
    TooLong,
}

/// A whole reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerReply {
    /// Code of its last line; any three digits.
    pub code: u16,
    /// Text of each line, after the code. What is no UTF-8 is replaced.
    pub lines: Vec<String>,
}

impl ServerReply {
    /// Whether it accepts a command or an email: 2yz, but not x2z, which speaks of the connection (RFC 5321, section
    /// 4.2.1): a greeting or a goodbye accepts nothing.
    pub fn accepts(&self) -> bool {
        self.code / 100 == 2 && self.code / 10 % 10 != 2
    }

    /// Whether it refuses a command or an email: 4yz or 5yz.
    pub fn refuses(&self) -> bool {
        matches!(self.code, 400..=599)
    }

    /// Whether the relay closes the connection (RFC 5321, section 3.8).
    pub fn closes(&self) -> bool {
        self.code == 421
    }

    /// Its status; the first line that has an enhanced code tells it (RFC 2034, section 4, wants it in each).
    pub fn status(&self) -> Reply {
        let mut statuses = self.lines.iter().map(|line| Reply::new(self.code, line));
        let enhanced = statuses.find(|status| status.enhanced.is_some());
        enhanced.unwrap_or_else(|| Reply::new(self.code, ""))
    }
}

/// Finds replies in bytes that arrive in pieces of any size.
#[derive(Default)]
pub struct ReplyParser {
    /// From the beginning of the reply that is being read.
    buffer: Vec<u8>,
    /// Where the line begins that is being read.
    line_start: usize,
    /// Up to where there is no line end in it.
    searched: usize,
    /// Lines of the reply that is being read.
    lines: Vec<String>,
}

impl ReplyParser {
    /// Where arriving bytes are appended.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Whether no byte waits to be read.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The next whole reply; `None` if more bytes have to arrive. Of no use after an error.
    pub fn next_reply(&mut self) -> Result<Option<ServerReply>, Unreadable> {
        loop {
            let unseen = self.buffer[self.searched..].iter();
            let line_end = unseen
                .copied()
                .position(|byte| byte == b'\n')
                .map(|offset| self.searched + offset + 1);
            self.searched = line_end.unwrap_or(self.buffer.len());
            if self.searched > MAX_REPLY_BYTES {
                return Err(Unreadable::TooLong);
            }
            let Some(end) = line_end else { return Ok(None) };
            let line = Line::parse(&self.buffer[self.line_start..end])?;
            self.line_start = end;
            self.lines.push(line.text);
            if line.is_last {
                self.buffer.drain(..end);
                (self.line_start, self.searched) = (0, 0);
                return Ok(Some(ServerReply {
                    code: line.code,
                    lines: mem::take(&mut self.lines),
                }));
            }
        }
    }
}

struct Line {
    code: u16,
    is_last: bool,
    text: String,
}

impl Line {
    /// `250-text`, `250 text`, and also `250`, with any line end.
    fn parse(line: &[u8]) -> Result<Self, Unreadable> {
        let line = line.trim_ascii_end();
        let Some((&[a, b, c], rest)) = line.split_first_chunk() else {
            return Err(Unreadable::NotAReply);
        };
        if ![a, b, c].iter().all(u8::is_ascii_digit) {
            return Err(Unreadable::NotAReply);
        }
        let (is_last, text): (_, &[u8]) = match rest {
            [] => (true, &[]),
            [b'-', text @ ..] => (false, text),
            [b' ' | b'\t', text @ ..] => (true, text),
            _ => return Err(Unreadable::NotAReply),
        };
        Ok(Self {
            code: [a, b, c]
                .iter()
                .fold(0, |code, digit| code * 10 + u16::from(digit - b'0')),
            is_last,
            text: String::from_utf8_lossy(text).into_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    /// Reads `bytes` in the given pieces: the replies up to the first error, and the error.
    fn read<'a>(
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> (Vec<ServerReply>, Option<Unreadable>) {
        let (mut parser, mut replies) = (ReplyParser::default(), Vec::new());
        for piece in pieces {
            parser.buffer().extend_from_slice(piece);
            loop {
                match parser.next_reply() {
                    Ok(Some(reply)) => replies.push(reply),
                    Ok(None) => break,
                    Err(error) => return (replies, Some(error)),
                }
            }
        }
        (replies, None)
    }

    fn read_one(bytes: &[u8]) -> Result<ServerReply, Unreadable> {
        match read([bytes]) {
            (replies, None) => Ok(replies.into_iter().next().expect("a whole reply")),
            (_, Some(error)) => Err(error),
        }
    }

    #[rstest]
    #[case(b"250 ok\r\n", 250, &["ok"])]
    #[case(b"250 ok\n", 250, &["ok"])]
    #[case(b"250\r\n", 250, &[""])]
    #[case(b"250 \r\n", 250, &[""])]
    #[case(b"250-\r\n250\n", 250, &["", ""])]
    #[case(b"250-a b\r\n250-c\r\n250 d\r\n", 250, &["a b", "c", "d"])]
    #[case(b"250-first\r\n550 last counts\r\n", 550, &["first", "last counts"])]
    #[case(b"299 x\r\n", 299, &["x"])]
    #[case(b"692 x\r\n", 692, &["x"])]
    #[case(b"250 caf\xe9\r\n", 250, &["caf\u{fffd}"])]
    fn replies_are_read_leniently(#[case] bytes: &[u8], #[case] code: u16, #[case] lines: &[&str]) {
        let reply = read_one(bytes).unwrap();
        assert_eq!(reply.code, code);
        assert_eq!(reply.lines, lines);
    }

    #[rstest]
    #[case(b"ok\r\n")]
    #[case(b"\r\n")]
    #[case(b"25\r\n")]
    #[case(b"2500 ok\r\n")]
    #[case(b"25x ok\r\n")]
    #[case(b"+25 ok\r\n")]
    #[case(b" 250 ok\r\n")]
    #[case(b"250ok\r\n")]
    #[case(b"250-first\r\nsecond\r\n250 ok\r\n")]
    #[case(b"\x16\x03\x01\x02\n")]
    fn other_bytes_are_no_reply(#[case] bytes: &[u8]) {
        assert_eq!(read_one(bytes), Err(Unreadable::NotAReply));
    }

    #[test]
    fn a_reply_has_a_longest_length() {
        let line = |length| [b"250 ".as_slice(), &vec![b'x'; length - 5], b"\n"].concat();
        assert!(read_one(&line(MAX_REPLY_BYTES)).is_ok());
        let too_long = line(MAX_REPLY_BYTES + 1);
        assert_eq!(read_one(&too_long), Err(Unreadable::TooLong));
        let many_lines = b"250-x\n".repeat(MAX_REPLY_BYTES / 6 + 1);
        assert_eq!(read([&many_lines[..]]).1, Some(Unreadable::TooLong));
        // A bound for each reply, not for all of them.
        assert_eq!(read([&line(20_000).repeat(5)[..]]).0.len(), 5);
    }

    #[rstest]
    #[case(b"250-5.1.1 no\r\n250 ok\r\n", "250")]
    #[case(b"250 2.1.5 ok\r\n", "250 2.1.5")]
    #[case(b"550-it is\r\n550 5.1.1 unknown\r\n", "550 5.1.1")]
    #[case(b"550-5.1.1 unknown\r\n550 there\r\n", "550 5.1.1")]
    // Of another class than the code.
    #[case(b"450 5.1.1 unknown\r\n", "450")]
    fn a_status_is_of_the_class_of_its_code(#[case] bytes: &[u8], #[case] status: &str) {
        assert_eq!(read_one(bytes).unwrap().status().to_string(), status);
    }

    #[test]
    fn only_some_codes_accept() {
        let accepting: Vec<u16> = (0..1000)
            .filter(|code| read_one(format!("{code:03}\n").as_bytes()).is_ok_and(|it| it.accepts()))
            .collect();
        let expected: Vec<u16> = (200..220).chain(230..300).collect();
        assert_eq!(accepting, expected);
    }

    /// Bytes that are often replies.
    fn session() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(b"250 ".to_vec()),
            Just(b"250-".to_vec()),
            Just(b"550".to_vec()),
            Just(b"\r\n".to_vec()),
            Just(b"\n".to_vec()),
            Just(vec![b'x'; 9_000]),
            proptest::collection::vec(any::<u8>(), 0..6),
        ];
        proptest::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn how_bytes_are_split_makes_no_difference(
            bytes in session(),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut start = 0;
            for cut in cuts {
                pieces.push(&bytes[start..cut]);
                start = cut;
            }
            pieces.push(&bytes[start..]);
            prop_assert_eq!(read(pieces), read([&bytes[..]]));
        }

        #[test]
        fn what_is_written_as_a_reply_is_read_as_it(
            code in 100..1000_u16,
            lines in proptest::collection::vec("[^\r\n]{0,40}[^\\s]", 1..5),
        ) {
            let last = lines.len() - 1;
            let text: Vec<String> = lines
                .iter()
                .enumerate()
                .map(|(at, line)| format!("{code}{}{line}\r\n", if at == last { ' ' } else { '-' }))
                .collect();
            prop_assert_eq!(read_one(text.concat().as_bytes()), Ok(ServerReply { code, lines }));
        }
    }
}
