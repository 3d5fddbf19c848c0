//! Tests of what a process has once: its log, its meter, its subscriber.

#![expect(clippy::expect_used, reason = "tests say what went wrong by panicking")]

use std::env;

use tokio::process::Command;

/// Set in the process of a single test.
const OWN_PROCESS: &str = "USHER_TEST_OWN_PROCESS";

/// Runs the test `name` (its path in the test program, for example `telemetry::nothing_personal_is_logged`) in a
/// process of its own, where no other test logs or counts. `true` there: go on; `false` where the test was run by
/// this call, and has passed.
///
/// # Panics
/// If the test failed, or there is none of this name.
pub async fn in_own_process(name: &str) -> bool {
    if env::var_os(OWN_PROCESS).is_some() {
        return true;
    }
    let program = env::current_exe().expect("this program");
    let output = Command::new(program)
        .args(["--exact", name])
        .env(OWN_PROCESS, "1")
        .output();
    let output = output.await.expect("a process");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{name}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    false
}
