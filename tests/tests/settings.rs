//! A setting that cannot be used: the service does not start, and says which one, and what is expected.

#![expect(clippy::expect_used, reason = "tests say what went wrong by panicking")]

use std::collections::BTreeMap;

use usher_tests::{Program, token_keys};

const AN_ADDRESS: &str = "expected an IP address and a port";
const A_DURATION: &str = "expected a number with its unit";
const A_LIMIT: &str = "expected emails/period, for example 5/24h";
const A_BOOL: &str = "[possible values: true, false]";
const MILLION: &str = "is not in 1..=1000000";
const NO_FILE: &str = "No such file";

/// Each setting, a wrong value, and what the message says beside the name.
const WRONG: [(&str, &str, &str); 65] = [
    ("GRPC_LISTEN", "localhost:50051", AN_ADDRESS),
    ("ADMIN_LISTEN", "9090", AN_ADDRESS),
    (
        "DATABASE_URL",
        "mysql://db.example/usher",
        "is not a PostgreSQL URL",
    ),
    ("DATABASE_URL_FILE", "/nowhere", NO_FILE),
    ("DATABASE_MAX_CONNECTIONS", "0", "0 is not in 1.."),
    ("DATABASE_MAX_WORKER_CONNECTIONS", "3", "3 is not in 4.."),
    ("AMQP_URL", "broker.example", "expected amqp[s]://"),
    ("AMQP_URL_FILE", "/nowhere", NO_FILE),
    ("AMQP_PREFIX", "a b", "up to 64 letters"),
    ("REQUEST_TIMEOUT", "20", A_DURATION),
    ("MAX_CONCURRENT_REQUESTS", "0", MILLION),
    ("MAX_STREAMING_REQUESTS", "0", MILLION),
    ("STREAM_IDLE_TIMEOUT", "0s", "must be longer than nothing"),
    ("MAX_CONNECTIONS", "0", MILLION),
    ("MAX_CONCURRENT_STREAMS", "0", "0 is not in 1.."),
    ("MAX_MESSAGE_BYTES", "1", "1 is not in 1000..=67108864"),
    ("MAX_BUFFERED_BYTES", "much", "invalid digit"),
    ("MAX_CONNECTION_AGE", "old", A_DURATION),
    ("SHUTDOWN_TIMEOUT", "2y", "365 days at most"),
    ("TLS_CERTIFICATE_FILE", "/nowhere", "set both of"),
    ("TLS_KEY_FILE", "/nowhere", "set both of"),
    (
        "TLS_CLIENT_CA_FILE",
        "/nowhere",
        "needs TLS_CERTIFICATE_FILE",
    ),
    (
        "JWT_JWKS_FILE",
        "/nowhere",
        "need JWT_ISSUER and JWT_AUDIENCE",
    ),
    ("JWT_JWKS_URL", "issuer .example", "invalid uri"),
    ("JWT_CA_FILE", "/nowhere", "needs JWT_JWKS_URL"),
    ("JWT_ISSUER", "x", "need JWT_JWKS_FILE or JWT_JWKS_URL"),
    ("JWT_AUDIENCE", "x", "need JWT_JWKS_FILE or JWT_JWKS_URL"),
    ("CALLER_GRANTS_FILE", "/nowhere", "needs TLS_CLIENT_CA_FILE"),
    ("ALLOW_UNAUTHENTICATED", "maybe", A_BOOL),
    ("TOKEN_PUBLIC_KEY", "AAAA", "not an X25519 key"),
    ("PASSWORD_MIN_LENGTH", "7", "7 is not in 8..=64"),
    ("MAX_CONCURRENT_HASHES", "0", "0 is not in 1.."),
    ("PORTAL_ORIGINS", "http://portal.example", "https"),
    ("ALLOW_HTTP_LOCALHOST", "maybe", A_BOOL),
    ("LOG_FORMAT", "text", "[possible values: json, pretty]"),
    ("LOG_FILTER", "info,=", "for example `info,sqlx=debug`"),
    (
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "a b",
        "for example `http://localhost:4317`",
    ),
    ("SMTP_URL", "relay.example", "expected smtp://host[:port]"),
    (
        "SMTP_USERNAME",
        "usher",
        "set SMTP_PASSWORD or SMTP_PASSWORD_FILE",
    ),
    ("SMTP_PASSWORD", "", "is empty"),
    ("SMTP_PASSWORD_FILE", "/nowhere", NO_FILE),
    ("SMTP_ALLOW_PLAINTEXT_LOGIN", "maybe", A_BOOL),
    ("SMTP_CA_FILE", "/nowhere", NO_FILE),
    ("SMTP_EHLO_NAME", "my host", "expected a host name"),
    ("SMTP_MAX_CONNECTIONS", "0", MILLION),
    ("SMTP_MAX_MAILS_PER_CONNECTION", "0", "0 is not in 1.."),
    ("SMTP_IDLE_TIMEOUT", "0", "must be longer than nothing"),
    ("SMTP_CONNECT_TIMEOUT", "soon", A_DURATION),
    ("SMTP_COMMAND_TIMEOUT", "soon", A_DURATION),
    ("SMTP_DATA_TIMEOUT", "soon", A_DURATION),
    (
        "MAIL_FROM",
        "Usher <no-reply@example.org>",
        "expected an address without a name",
    ),
    ("TOKEN_PRIVATE_KEY", "AAAA", "not an X25519 key"),
    ("TOKEN_PRIVATE_KEY_FILE", "/nowhere", NO_FILE),
    ("RECIPIENT_LIMIT", "5", A_LIMIT),
    ("RECIPIENT_GAP", "31days", "at most 30 days"),
    ("SECURITY_LIMIT", "5/day", A_LIMIT),
    ("DOMAIN_LIMIT", "0/1h", "at least 1 email"),
    ("ORGANIZATION_LIMIT", "many", A_LIMIT),
    ("RELAY_LIMIT", "", A_LIMIT),
    ("SEND_LEASE", "2s", "must be at least 3s"),
    ("RETRY_BASE", "2h", "longer than RETRY_MAX"),
    ("RETRY_MAX", "1s", "longer than RETRY_MAX"),
    (
        "UNKNOWN_OUTCOME",
        "retry",
        "[possible values: resend, fail]",
    ),
    ("UNKNOWN_DELAY", "soon", A_DURATION),
    ("DELIVERY_RETENTION", "1day", "between 30 and 3650 days"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_that_cannot_be_used_is_named_with_what_is_expected() {
    let (private_key, public_key) = token_keys().await.expect("keys");
    for program in ["account-svc", "notify-svc"] {
        let usable = BTreeMap::from([
            ("DATABASE_URL", "postgres://127.0.0.1:1/none"),
            ("AMQP_URL", "amqp://127.0.0.1:1"),
            ("TOKEN_PRIVATE_KEY", private_key.as_str()),
            ("MAIL_FROM", "no-reply@usher.example"),
            ("SMTP_EHLO_NAME", "usher.example"),
            ("TOKEN_PUBLIC_KEY", public_key.as_str()),
            ("PORTAL_ORIGINS", "https://portal.example"),
            ("GRPC_LISTEN", "127.0.0.1:0"),
            ("ADMIN_LISTEN", "127.0.0.1:0"),
            ("ALLOW_UNAUTHENTICATED", "true"),
        ]);
        for (variable, flag) in settings_of(program).await {
            let (_, value, expected) = WRONG
                .iter()
                .find(|(name, ..)| *name == variable)
                .unwrap_or_else(|| panic!("{variable} has no wrong value in the table"));
            let mut settings = usable.clone();
            if let Some(secret) = variable.strip_suffix("_FILE") {
                settings.remove(secret);
            }
            if variable.starts_with("SMTP_PASSWORD") {
                settings.insert("SMTP_USERNAME", "usher");
            }
            if ["JWT_", "TLS_CLIENT", "CALLER"]
                .iter()
                .any(|group| variable.starts_with(group))
            {
                settings.remove("ALLOW_UNAUTHENTICATED");
            }
            settings.insert(&variable, value);
            let settings: Vec<(&str, &str)> = settings.into_iter().collect();
            let message = Program::refuse(program, &settings)
                .await
                .unwrap_or_else(|error| panic!("{variable}={value}: {error:#}"));
            let named = format!("\n{flag} or {variable}: ");
            assert!(
                message.contains(&named),
                "{variable} is not named: {message}"
            );
            assert!(message.contains(expected), "{variable}: {message}");
        }
    }
}

/// What notify-svc cannot know, and how an example of it begins.
const REQUIRED: [(&str, &str); 2] = [
    ("MAIL_FROM", "for example `no-reply@"),
    ("SMTP_EHLO_NAME", "for example `mail."),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_required_setting_that_is_missing_is_named_with_an_example() {
    for (missing, example) in REQUIRED {
        let others = [
            ("MAIL_FROM", "no-reply@usher.example"),
            ("SMTP_EHLO_NAME", "usher.example"),
        ];
        let settings: Vec<_> = others.into_iter().filter(|it| it.0 != missing).collect();
        let said = Program::refuse("notify-svc", &settings)
            .await
            .expect("refused");
        assert!(said.contains(&format!(" or {missing}: ")), "{said}");
        assert!(said.contains(example), "{said}");
    }
}

/// Setting, and a value with a password that cannot be used.
const HOLD_SECRETS: [(&str, &str); 12] = [
    ("DATABASE_URL", "postgres://u:hunter2@h:port/db"),
    ("AMQP_URL", "amqp://u:hunter2@h:port"),
    ("SMTP_URL", "smtp://u:hunter2@relay"),
    ("SMTP_URL", "hunter2"),
    ("SMTP_PASSWORD", "hunter2"),
    ("JWT_JWKS_URL", "https://u:hunter2@issuer .example"),
    ("JWT_JWKS_URL", "http://u:hunter2@issuer.example"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "grpc://u:hunter2@collector"),
    ("TOKEN_PRIVATE_KEY", "hunter2"),
    // In the wrong variable.
    ("TOKEN_PUBLIC_KEY", "hunter2"),
    ("GRPC_LISTEN", "hunter2"),
    ("LOG_FORMAT", "hunter2"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_that_may_hold_a_secret_is_not_repeated() {
    for program in ["account-svc", "notify-svc"] {
        for (variable, _) in settings_of(program).await {
            let may_hold = ["_URL", "_KEY", "_PASSWORD", "_ENDPOINT"];
            assert!(
                !may_hold.iter().any(|end| variable.ends_with(end))
                    || HOLD_SECRETS.iter().any(|(name, _)| *name == variable),
                "{variable} is not in the table"
            );
        }
        for setting in HOLD_SECRETS {
            let settings = [setting, ("GRPC_LISTEN", "127.0.0.1:0")];
            let settings = &settings[..if setting.0 == "GRPC_LISTEN" { 1 } else { 2 }];
            let said = Program::refuse(program, settings).await.expect("refused");
            assert!(!said.contains("hunter2"), "{program} {setting:?}: {said}");
            let help = Program::run(program, &["serve", "--help"], settings)
                .await
                .expect("help");
            let shown = ["GRPC_LISTEN", "LOG_FORMAT", "TOKEN_PUBLIC_KEY"].contains(&setting.0);
            assert!(shown || !help.contains("hunter2"), "{program} {setting:?}");
        }
    }
}

/// The environment variable and the flag of each setting of `serve`, as its help names them.
async fn settings_of(program: &str) -> Vec<(String, String)> {
    let help = Program::run(program, &["serve", "--help"], &[])
        .await
        .expect("help");
    let mut settings = Vec::new();
    let mut flag = "";
    for line in help.lines().map(str::trim) {
        if line.starts_with("--") {
            flag = line.split(' ').next().expect("a flag");
        } else if let Some(variable) = line.strip_prefix("[env: ") {
            let variable = variable
                .trim_end_matches(']')
                .split('=')
                .next()
                .expect("a variable");
            settings.push((variable.to_owned(), flag.to_owned()));
        }
    }
    assert!(settings.len() > 30, "{help}");
    settings
}
