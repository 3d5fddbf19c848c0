use std::time::Duration;

use clap::Parser;
use rstest::rstest;

use super::NotifyArgs;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    notify: NotifyArgs,
}

fn parse(settings: &[&str]) -> Result<NotifyArgs, clap::Error> {
    let arguments = ["test"].iter().chain(settings);
    Ok(Cli::try_parse_from(arguments)?.notify)
}

#[rstest]
#[case::empty("", "TOKEN_PRIVATE_KEY is empty")]
#[case::separators(
    ", ,",
    "TOKEN_PRIVATE_KEY holds no key: `notify-svc generate-key` makes one"
)]
#[case::malformed("AAAA", "TOKEN_PRIVATE_KEY")]
fn without_a_key_nothing_starts(#[case] keys: &str, #[case] message: &str) {
    let args = parse(&["--token-private-key", keys]).expect("parses");
    let error = args.keys().map(|_| ()).expect_err("refused");
    assert_eq!(error.to_string(), message);
}

#[test]
fn counts_and_durations_that_make_no_sense_are_refused() {
    for setting in [
        "--send-concurrency=0",
        "--send-lease=0s",
        "--retry-base=0s",
        "--retry-max=0s",
        "--unknown-delay=0s",
        "--smtp-max-connections=0",
        "--smtp-max-mails-per-connection=0",
        "--smtp-idle-timeout=0s",
        "--smtp-connect-timeout=0s",
        "--smtp-command-timeout=0s",
        "--smtp-data-timeout=0s",
    ] {
        let message = parse(&[setting]).expect_err(setting).to_string();
        let (name, _) = setting.split_once('=').expect("a value");
        assert!(message.contains(name), "{message}");
    }
}

#[test]
fn the_first_delay_is_not_longer_than_the_longest() {
    let sender = |base| {
        let args = parse(&[base, "--retry-max=1h"]).expect("parses");
        args.sender(Duration::from_secs(1)).map(|_| ())
    };
    assert!(sender("--retry-base=1h").is_ok());
    let error = sender("--retry-base=61m").expect_err("refused");
    assert_eq!(error.to_string(), "RETRY_BASE is longer than RETRY_MAX");
}

#[rstest]
#[case("--smtp-password=hidden")]
#[case("--smtp-password-file=password")]
fn a_password_needs_a_user_name(#[case] password: &str) {
    let message = parse(&[password]).expect_err("refused").to_string();
    assert!(message.contains("--smtp-username"), "{message}");
    assert!(!message.contains("hidden"), "{message}");
    assert!(parse(&[password, "--smtp-username="]).is_err());
    assert!(parse(&[password, "--smtp-username=usher"]).is_ok());
}
