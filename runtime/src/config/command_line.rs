//! The command line of a program, and what it says when a setting cannot be used.

use std::{fmt::Write as _, process::ExitCode};

use clap::{
    Arg, Command, Parser,
    error::{ContextKind, ContextValue},
};

/// Parses the command line and runs `work` with it. What goes wrong is printed to standard error, with
/// the flag, the environment variable and the meaning of each setting that the message names; the exit code
/// is 2 if the command line could not be parsed, and 1 if `work` failed. Values are not repeated: a URL may hold a
/// password, and whoever mistakes one variable for another may put a key anywhere.
pub async fn run<C: Parser>(work: impl AsyncFnOnce(C) -> anyhow::Result<()>) -> ExitCode {
    let (message, code) = match C::try_parse() {
        // Help, or the version.
        Err(error) if !error.use_stderr() => error.exit(),
        Err(mut error) => {
            if error.get(ContextKind::InvalidValue).is_some() {
                let hidden = ContextValue::String("…".to_owned());
                error.insert(ContextKind::InvalidValue, hidden);
            }
            (error.to_string(), 2)
        }
        Ok(arguments) => match work(arguments).await {
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) => (format!("Error: {error:?}\n"), 1),
        },
    };
    let settings = named_settings(&C::command(), &message);
    #[expect(clippy::print_stderr, reason = "says why the program ends")]
    {
        eprint!("{message}{settings}");
    }
    ExitCode::from(code)
}

/// A line for each setting that `message` names, by flag or environment variable.
fn named_settings(command: &Command, message: &str) -> String {
    let words: Vec<&str> = message
        .split(|character: char| !(character.is_ascii_alphanumeric() || "-_".contains(character)))
        .collect();
    let mut lines = String::new();
    for setting in command.get_subcommands().flat_map(Command::get_arguments) {
        let (Some(flag), Some(variable)) = (setting.get_long(), setting.get_env()) else {
            continue;
        };
        let (flag, variable) = (format!("--{flag}"), variable.to_string_lossy());
        let is_named = words.contains(&flag.as_str()) || words.contains(&&*variable);
        // Subcommands have settings in common.
        if is_named && !lines.contains(&format!("\n{flag} ")) {
            let _ = write!(lines, "\n{flag} or {variable}: {}\n", meaning(setting));
        }
    }
    lines
}

fn meaning(setting: &Arg) -> String {
    let mut text = setting
        .get_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    let defaults = setting.get_default_values().iter();
    for default in defaults.filter(|default| !default.is_empty()) {
        let _ = write!(text, " [default: {}]", default.to_string_lossy());
    }
    text
}
