use std::time::Duration;

use clap::Parser;
use rstest::rstest;

use super::NotifyArgs;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    notify: NotifyArgs,
}

/// What has no default.
const REQUIRED: [&str; 2] = [
    "--mail-from=no-reply@mail.example",
    "--smtp-ehlo-name=mail.example",
];

fn parse(settings: &[&str]) -> Result<NotifyArgs, clap::Error> {
    let arguments = ["test"].iter().chain(&REQUIRED).chain(settings);
    Ok(Cli::try_parse_from(arguments)?.notify)
}

#[rstest]
#[case("--mail-from")]
#[case("--smtp-ehlo-name")]
fn whose_mail_it_is_has_to_be_said(#[case] setting: &str) {
    let others = REQUIRED.iter().filter(|other| !other.starts_with(setting));
    let message = Cli::try_parse_from(["test"].iter().chain(others))
        .expect_err("refused")
        .to_string();
    assert!(message.contains(setting), "{message}");
}

#[test]
fn the_defaults_fit_together() {
    let args = parse(&[]).expect("parses");
    args.sender(Duration::from_secs(1)).expect("usable");
    // RFC 5321, section 4.5.3.2.6.
    assert!(args.smtp.timeouts().data >= Duration::from_mins(10));
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
