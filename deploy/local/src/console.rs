//! What the person at the terminal reads.

use std::io::Write as _;

/// Says what is being done.
pub(crate) fn step(text: &str) {
    line(&format!("  ... {text}"));
}

/// Writes a line to standard output. A reader that is gone is no reason to fail.
pub(crate) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}

/// Says on standard error why the program ends.
pub(crate) fn failure(error: &anyhow::Error) {
    let _ = writeln!(std::io::stderr(), "usher-local: {error:#}");
}
