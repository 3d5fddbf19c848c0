//! No type that holds personal data or secrets shows them in its `Debug`: read from the code of the services.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "tests say what went wrong by panicking"
)]

use std::{fs, path::Path};

/// Names of fields that hold personal data, secrets, or hashes from which either can be guessed, if they are texts or
/// bytes.
const HIDDEN: &[&str] = &[
    "acknowledgement_reason",
    "body",
    "canonical_email",
    "ciphertext",
    "content",
    "email",
    "email_canonical",
    "family",
    "family_name",
    "given",
    "given_name",
    "hash",
    "html",
    "password",
    "password_hash",
    "payload",
    "phone",
    "recipient",
    "recipient_canonical",
    "source",
    "text",
    "token",
    "token_hash",
];

/// What a type is written with that shows what it holds.
const PLAIN: &[&str] = &["String", "str", "Vec<u8>", "[u8", "i64", "Payload"];

/// The fields of a source text that its derived `Debug` would show, as `Type.field`.
fn shown_fields(source: &str) -> Vec<String> {
    let mut shown = Vec::new();
    let (mut derives_debug, mut inside) = (false, None);
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[derive(") {
            derives_debug = line.contains("Debug");
        } else if let Some((_, rest)) = line.split_once("struct ")
            && line.ends_with('{')
        {
            let name = rest.split(['<', ' ']).next().unwrap_or_default();
            inside = derives_debug.then_some(name);
        } else if line == "}" {
            (derives_debug, inside) = (false, None);
        } else if let Some(name) = inside
            && let Some((field, kind)) = line.split_once(": ")
            && let Some(field) = field.split(' ').next_back()
            && HIDDEN.contains(&field)
            && PLAIN
                .iter()
                .any(|plain| kind.replace("SecretString", "").contains(plain))
        {
            shown.push(format!("{name}.{field}"));
        }
    }
    shown
}

fn check(folder: &Path, shown: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("sources") {
        let path = entry.unwrap().path();
        if path.is_dir() {
            check(&path, shown);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path).unwrap();
            let found = shown_fields(&source);
            shown.extend(
                found
                    .iter()
                    .map(|field| format!("{}: {field}", path.display())),
            );
        }
    }
}

#[test]
fn no_debug_shows_personal_data_or_secrets() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut shown = Vec::new();
    for folder in ["account-svc/src", "notify-svc/src", "runtime/src"] {
        check(&root.join(folder), &mut shown);
    }
    assert!(shown.is_empty(), "use `hidden_debug!` for: {shown:#?}");
}

#[test]
fn fields_are_found() {
    let source = "
        #[derive(Debug, Clone)]
        pub struct Client<'a> {
            /// The name.
            pub(crate) given_name: &'a str,
            pub id: Uuid,
            pub email: Email,
            password_hash: String,
        }
        #[derive(Clone)]
        struct Other {
            token: String,
        }";
    assert_eq!(
        shown_fields(source),
        ["Client.given_name", "Client.password_hash"]
    );
}
