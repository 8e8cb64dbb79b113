//! Runs `cargo test`, shows its output, and reads it.

use std::io::{self, BufReader, IsTerminal as _, Write};
use std::process::Command;

use anyhow::{Context as _, bail};

use super::outcome::Outcome;

/// Runs cargo to its end and prints its output. Adds the names of the failed tests to `failed`.
pub(super) fn run(mut cargo: Command, failed: &mut Vec<String>) -> anyhow::Result<()> {
    let out = io::stdout();
    if out.is_terminal() {
        cargo.env("CARGO_TERM_COLOR", "always");
    }
    // It is not locked: other steps print at the same time.
    run_into(out, cargo, failed)
}

/// Cargo's standard output and standard error go through one pipe, so that each line keeps its place.
fn run_into(out: impl Write, mut cargo: Command, failed: &mut Vec<String>) -> anyhow::Result<()> {
    let (reader, writer) = io::pipe().context("no pipe for the output of cargo")?;
    let copy = writer
        .try_clone()
        .context("no pipe for the output of cargo")?;
    cargo.stdout(copy).stderr(writer);
    let mut child = cargo.spawn().context("cannot run cargo; is it in PATH?")?;
    // This also closes the ends of the pipe that this process holds.
    drop(cargo);
    let outcome = show(BufReader::new(reader), out);
    let status = child.wait().context("cargo's end is unknown")?;
    let mut outcome = outcome?;
    if status.success() {
        return Ok(());
    }
    let names = outcome.failed();
    if names.is_empty() {
        bail!("`cargo test` failed with {status} before a test did; its output is above");
    }
    let count = names.len();
    failed.extend(names);
    bail!("{count} failed; they are named below");
}

/// Copies all lines to `out`, and parses them.
fn show(mut lines: impl io::BufRead, mut out: impl Write) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut line = Vec::new();
    let mut read = |line: &mut Vec<u8>| {
        let read = lines.read_until(b'\n', line);
        read.context("cannot read the output of cargo")
    };
    while read(&mut line)? > 0 {
        out.write_all(&line).context("cannot print")?;
        outcome.read(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the output, the error and the failed tests of a script that stands for a cargo that fails.
    fn run_script(script: &str) -> (String, String, Vec<String>) {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{script}; exit 101")]);
        let (mut out, mut failed) = (Vec::new(), Vec::new());
        let error = run_into(&mut out, shell, &mut failed).expect_err("it failed");
        let shown = String::from_utf8(out).expect("text");
        (shown, error.to_string(), failed)
    }

    #[test]
    fn running_tests_are_shown_and_failed_ones_are_returned() {
        let (shown, error, failed) = run_script(
            "echo '  Running tests/a.rs (target/debug/deps/a-1)' >&2; echo failures:; echo '    t'; \
             echo 'test result: FAILED. 0 passed; 1 failed'",
        );
        assert_eq!(shown.lines().count(), 4, "{shown}");
        assert!(error.contains("1 failed"), "{error}");
        assert_eq!(failed, ["a (tests/a.rs): t"]);
    }

    #[test]
    fn a_build_that_fails_is_an_error_without_names() {
        let (_, error, failed) = run_script("echo 'error: could not compile'");
        assert!(error.contains("before a test did"), "{error}");
        assert!(failed.is_empty());
    }
}
