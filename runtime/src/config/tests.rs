use std::{io::Write as _, path::PathBuf};

use clap::Parser;
use secrecy::{ExposeSecret as _, SecretString};

use super::{DatabaseArgs, ServerArgs, TelemetryArgs, secret};

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    _server: ServerArgs,
    #[command(flatten)]
    _database: DatabaseArgs,
    #[command(flatten)]
    telemetry: TelemetryArgs,
}

#[test]
fn counts_and_durations_that_make_no_sense_are_refused() {
    for setting in [
        "--max-concurrent-requests=0",
        "--max-concurrent-requests=18446744073709551615",
        "--max-streaming-requests=0",
        "--max-connections=0",
        "--max-concurrent-streams=0",
        "--max-message-bytes=0",
        "--max-message-bytes=4294967296",
        "--database-max-connections=0",
        "--database-max-worker-connections=0",
        "--request-timeout=0s",
        "--stream-idle-timeout=0s",
        "--max-connection-age=0s",
        "--shutdown-timeout=0s",
        "--shutdown-timeout=366days",
    ] {
        let error = Cli::try_parse_from(["test", setting]).expect_err(setting);
        let (name, value) = setting.split_once('=').expect("a value");
        let message = error.to_string();
        assert!(
            message.contains(name) && message.contains(value),
            "{message}"
        );
    }
}

#[test]
fn a_collector_is_named_by_a_url() {
    for wrong in [
        "collector",
        "localhost:4317",
        "grpc://localhost",
        "http://",
        "http://a b",
    ] {
        let error = Cli::try_parse_from(["test", "--otlp-endpoint", wrong]).expect_err(wrong);
        let message = error.to_string();
        assert!(
            message.contains("OTEL_EXPORTER_OTLP_ENDPOINT must be"),
            "{message}"
        );
    }
    for right in ["http://localhost:4317", "https://collector.example", ""] {
        let cli = Cli::try_parse_from(["test", "--otlp-endpoint", right]).expect(right);
        let endpoint = cli.telemetry.otlp_endpoint.expect("an endpoint");
        assert_eq!(endpoint, right);
    }
}

#[test]
fn an_empty_secret_is_refused_by_name() {
    for value in ["", " ", "\n"] {
        let given = secret(Some(&SecretString::from(value)), None, "THE_SECRET");
        assert_eq!(given.expect_err(value).to_string(), "THE_SECRET is empty");
        let (_guard, path) = file(value);
        let error = secret(None, Some(&path), "THE_SECRET").expect_err(value);
        assert!(
            error.to_string().starts_with("THE_SECRET_FILE: "),
            "{error}"
        );
        assert!(error.to_string().ends_with(" is empty"), "{error}");
    }
    let (_guard, path) = file("hidden\n");
    let read = secret(None, Some(&path), "THE_SECRET").expect("a secret");
    assert_eq!(read.expose_secret(), "hidden");
}

fn file(content: &str) -> (tempfile::TempPath, PathBuf) {
    let mut file = tempfile::NamedTempFile::new().expect("file");
    file.write_all(content.as_bytes()).expect("write");
    let path = file.into_temp_path();
    let name = path.to_path_buf();
    (path, name)
}
