//! An email's content as DATA carries it.

/// Content with its final dot.
pub struct Content {
    /// What is written after 354.
    pub bytes: Vec<u8>,
    /// Bytes of the email itself, as SIZE counts them (RFC 1870, section 5): without what the transport adds.
    pub size: u64,
}

impl Content {
    /// Ends each line with CRLF, so that no line end in `raw` is read as another by somebody else (a hidden `LF . LF`
    /// would begin another email there), doubles leading dots (RFC 5321, section 4.5.2) and appends the final one.
    pub fn new(raw: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(raw.len() + raw.len() / 32 + 8);
        let mut added = 0;
        let mut rest = raw;
        while !rest.is_empty() {
            let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
            let end = rest.iter().position(is_end).unwrap_or(rest.len());
            let (line, after) = rest.split_at(end);
            if line.starts_with(b".") {
                bytes.push(b'.');
                added += 1;
            }
            bytes.extend_from_slice(line);
            bytes.extend_from_slice(b"\r\n");
            let line_end = if after.starts_with(b"\r\n") { 2 } else { 1 };
            rest = after.get(line_end..).unwrap_or_default();
        }
        let size = bytes.len() - added;
        bytes.extend_from_slice(b".\r\n");
        Self {
            bytes,
            size: size as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(b"", b".\r\n", 0)]
    #[case(b"a", b"a\r\n.\r\n", 3)]
    #[case(b"a\r\n", b"a\r\n.\r\n", 3)]
    #[case(b"a\nb\rc", b"a\r\nb\r\nc\r\n.\r\n", 9)]
    #[case(b".\r\n..\r\na.", b"..\r\n...\r\na.\r\n.\r\n", 11)]
    // What would end the email for a server that takes other line ends.
    #[case(b"a\n.\nb", b"a\r\n..\r\nb\r\n.\r\n", 9)]
    #[case(b"a\r\n.\rb", b"a\r\n..\r\nb\r\n.\r\n", 9)]
    #[case(b"a\r\r\nb", b"a\r\n\r\nb\r\n.\r\n", 8)]
    fn lines_end_alike_and_dots_are_doubled(
        #[case] raw: &[u8],
        #[case] expected: &[u8],
        #[case] size: u64,
    ) {
        let content = Content::new(raw);
        assert_eq!(
            content.bytes.escape_ascii().to_string(),
            expected.escape_ascii().to_string()
        );
        assert_eq!(content.size, size);
    }

    proptest! {
        #[test]
        fn a_server_reads_what_was_written(raw in "[a.\r\n]{0,40}") {
            let content = Content::new(raw.as_bytes());
            let text = String::from_utf8(content.bytes).expect("text");
            let mut lines: Vec<_> = text.split("\r\n").collect();
            prop_assert_eq!(lines.pop(), Some(""));
            prop_assert_eq!(lines.pop(), Some("."));
            prop_assert!(!lines.contains(&".") && !lines.iter().any(|line| line.contains(['\r', '\n'])));
            let received: Vec<_> = lines.iter().map(|line| line.strip_prefix('.').unwrap_or(line)).collect();
            let unified = raw.replace("\r\n", "\n").replace('\r', "\n");
            let sent: Vec<_> = unified.split_terminator('\n').collect();
            prop_assert_eq!(&received, &sent);
            prop_assert_eq!(content.size, received.iter().map(|line| line.len() as u64 + 2).sum::<u64>());
        }
    }
}
