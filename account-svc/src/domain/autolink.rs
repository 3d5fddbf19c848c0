//! What mail programs turn into a link though nobody wrote one.
//!
//! Names that staff enter are part of emails that the platform sends. If one were `evil.example/free-gift`, the
//! email would hold a link of theirs. Programs differ in what they link; what counts here is what any of them
//! may: a scheme, a word with `www.`, an email address, or a host name under a top-level domain that exists.

use std::{collections::HashSet, net::Ipv4Addr, sync::LazyLock};

use unicode_normalization::{UnicodeNormalization as _, char::is_combining_mark};

use super::text;

/// One a line, in A-label form.
static TOP_LEVEL_DOMAINS: LazyLock<HashSet<&str>> = LazyLock::new(|| {
    include_str!("top_level_domains.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect()
});

/// Whether a mail program may make a link of a part of this text.
#[must_use]
pub fn may_be_linked(text: &str) -> bool {
    let text = compatible(text);
    has_scheme(&text) || has_address(&text) || words(&text).any(is_host)
}

/// Whether this text holds a scheme with `://` or an email address. Host names alone are let through: companies
/// call themselves by theirs.
#[must_use]
pub fn has_scheme_or_address(text: &str) -> bool {
    let text = compatible(text);
    has_scheme(&text) || has_address(&text)
}

/// The text as browsers read host names: full-width and other compatibility forms replaced, invisible
/// characters left out, the full stops of Chinese and Japanese as dots (Unicode Technical Standard 46).
fn compatible(text: &str) -> String {
    text.nfkc()
        .filter(|&character| character.is_whitespace() || !text::is_invisible(character))
        .map(|character| if character == '。' { '.' } else { character })
        .collect::<String>()
        .to_lowercase()
}

fn has_scheme(text: &str) -> bool {
    text.contains("://") || text.contains(":\\\\")
}

/// Whether there is an `@` between two words.
fn has_address(text: &str) -> bool {
    text.match_indices('@')
        .any(|(at, _)| text[..at].ends_with(is_of_word) && text[at + 1..].starts_with(is_of_word))
}

/// The longest pieces that may be a host name.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|character| !is_of_word(character))
        // Two dots in a row end a host name.
        .flat_map(|word| word.split(".."))
        .map(|word| word.trim_matches('.'))
}

fn is_of_word(character: char) -> bool {
    matches!(character, '.' | '-' | '_')
        || if character.is_ascii() {
            character.is_ascii_alphanumeric()
        } else {
            // Emoji too: there are host names of them.
            !character.is_whitespace()
        }
}

fn is_host(word: &str) -> bool {
    let mut labels = word.split('.');
    let first = labels.next();
    // Some programs end a link before `-` and at a later dot, so that each label may be the last.
    labels.any(|label| first == Some("www") || is_top_level_domain(label))
        || word.parse::<Ipv4Addr>().is_ok()
}

/// Whether a label is a top-level domain, or begins with one that ends at a sign.
fn is_top_level_domain(label: &str) -> bool {
    let start = label
        .find(|character: char| !character.is_alphanumeric() && !is_combining_mark(character))
        .map_or(label, |end| &label[..end]);
    [label, start].into_iter().any(|label| {
        if label.is_ascii() {
            TOP_LEVEL_DOMAINS.contains(label)
        } else {
            idna::domain_to_ascii(label)
                .is_ok_and(|label| TOP_LEVEL_DOMAINS.contains(label.as_str()))
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("https://evil.example/free-gift")]
    #[case("Ann https://localhost")]
    #[case("ｈｔｔｐ：／／x")]
    #[case("http:\\\\x")]
    #[case("www.evil")]
    #[case("Ann WWW.evil")]
    #[case("evil.com")]
    #[case("Evil.Com")]
    #[case("evil.com.")]
    #[case("evil.com/free")]
    #[case("evil.com?x")]
    #[case("evil.com#x")]
    #[case("evil.com:8443")]
    #[case("(evil.com)")]
    #[case("“evil.com”")]
    #[case("visit:evil.com,now")]
    #[case("..evil.com")]
    #[case("a..evil.com")]
    #[case("evil.com-free")]
    #[case("evil.com_free")]
    #[case("evil.com.x")]
    #[case("evil。com")]
    #[case("evil｡com")]
    #[case("evil．com")]
    #[case("ｅｖｉｌ.ｃｏｍ")]
    #[case("evil\u{2024}com")]
    #[case("ev\u{200B}il.c\u{AD}om")]
    #[case("e vil.com")]
    #[case("evil.рф")]
    #[case("злой.рф")]
    #[case("evil.xn--p1ai")]
    #[case("例え.中国")]
    #[case("நண்பர்.சிங்கப்பூர்")]
    #[case("☃.net")]
    #[case("bit.ly")]
    #[case("t.co")]
    #[case("ann@example.org")]
    #[case("ann@localhost")]
    #[case("ann＠evil")]
    #[case("192.168.0.1")]
    fn what_may_become_a_link_is_found(#[case] text: &str) {
        assert!(may_be_linked(text));
    }

    #[rstest]
    #[case("J.R.R.")]
    #[case("St. John")]
    #[case("St.John")]
    #[case("Ma.Cristina")]
    #[case("Jr.")]
    #[case("s/o")]
    #[case("d/o")]
    #[case("O'Brien")]
    #[case("Anne-Marie")]
    #[case("Müller-Lüdenscheidt")]
    #[case("d.")]
    #[case("Y.")]
    #[case("X Æ A-12")]
    #[case("Ph.D.")]
    #[case("M.D.")]
    #[case("Dr. med.")]
    #[case("Dipl.-Ing.")]
    #[case("A. de la Cruz")]
    #[case("Jean-Éric.")]
    #[case("...")]
    #[case("@ Ann")]
    #[case("com")]
    #[case("Smith / Jones: 2")]
    #[case("王.芳")]
    #[case("علی\u{200C}رضا")]
    fn names_are_let_through(#[case] text: &str) {
        assert!(!may_be_linked(text));
    }

    #[test]
    fn companies_may_be_called_by_their_host_name() {
        for name in ["Booking.com", "www.acme.example", "Caf@", "@home", "A/B: C"] {
            assert!(!has_scheme_or_address(name), "{name}");
        }
        for name in [
            "https://acme.example",
            "Bank <a@b.example>",
            "a＠b",
            "x：／／y",
        ] {
            assert!(has_scheme_or_address(name), "{name}");
        }
    }

    proptest! {
        #[test]
        fn host_names_are_found_wherever_they_stand(
            before in "(|[\\PC&&[^\\p{Han}\\p{M}.@]]{0,8}[ (/,])", host in "[a-z]{1,10}", top in "(com|NET|org|Dev|io|co\\.uk|рф)",
            after in "(|[ /?#:,)].{0,8})",
        ) {
            let text = format!("{before}{host}.{top}{after}");
            prop_assert!(may_be_linked(&text));
        }

        #[test]
        fn letters_spaces_and_hyphens_are_no_link(text in "[\\p{L} '’-]{0,40}") {
            // Some letters are compatibility forms of several characters.
            prop_assume!(!compatible(&text).contains(['.', '@', ':']));
            prop_assert!(!may_be_linked(&text));
        }

        #[test]
        fn nothing_panics(text in "\\PC{0,100}") {
            let _ = (may_be_linked(&text), has_scheme_or_address(&text));
        }
    }
}
