//! Reads the output of `cargo test`: which tests failed and why, and which test programs ended without a result.

use std::collections::BTreeSet;
use std::mem;

/// The most lines of a panic message that are repeated.
const MESSAGE_LINES_MAX: usize = 12;
/// The most characters of one of them.
const LINE_CHARS_MAX: usize = 300;

/// Reads the output of `cargo test`, line by line.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// The test program that is running; `None` before the first.
    current: Option<Program>,
    failed: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Program {
    name: String,
    /// The names below the last line `failures:`. The output of failed tests comes before them.
    listed: Vec<String>,
    lists: bool,
    /// The tests that failed; `None` until the program has reported its result.
    result: Option<Vec<String>>,
    panics: Vec<Panic>,
    /// Whether the message of the last panic continues.
    panicking: bool,
}

#[derive(Debug)]
struct Panic {
    /// The main thread of a test has the name of the test.
    thread: String,
    /// The place, and the message.
    lines: Vec<String>,
}

impl Outcome {
    /// Reads the next line, with or without colours.
    pub(crate) fn read(&mut self, line: &str) {
        let line = without_colours(line);
        if let Some(name) = started(&line) {
            self.end_program();
            self.current = Some(Program {
                name,
                ..Program::default()
            });
        } else if let Some(program) = &mut self.current {
            program.read(&line);
        }
    }

    /// Returns the failures: tests by name, each with its program and the lines of its panic message, and programs that
    /// crashed. Call it only if cargo failed.
    pub(crate) fn failed(&mut self) -> Vec<String> {
        self.end_program();
        self.failed.iter().cloned().collect()
    }

    fn end_program(&mut self) {
        if let Some(program) = self.current.take() {
            let (name, panics) = (program.name, program.panics);
            let crashed = || vec!["it ended without a result".to_owned()];
            let tests = program.result.unwrap_or_else(crashed).into_iter();
            self.failed.extend(tests.map(|test| {
                let first = panics.iter().find(|panic| panic.thread == test);
                let lines = first.map_or(&[][..], |panic| &panic.lines);
                let message: String = lines.iter().map(|line| format!("\n      {line}")).collect();
                format!("{name}: {test}{message}")
            }));
        }
    }
}

impl Program {
    fn read(&mut self, line: &str) {
        if let Some(panic) = Panic::begins(line) {
            self.panics.push(panic);
            self.panicking = true;
        } else if self.panicking && !ends_message(line) {
            if let Some(panic) = self.panics.last_mut() {
                panic.read(line);
            }
        } else {
            self.panicking = false;
            self.read_list(line);
        }
    }

    fn read_list(&mut self, line: &str) {
        if line == "failures:" {
            self.listed.clear();
            self.lists = true;
        } else if let Some(result) = line.strip_prefix("test result: ") {
            self.lists = false;
            // The last result counts: a failed test may have printed the output of another cargo.
            self.result = Some(if result.starts_with("ok") {
                Vec::new()
            } else {
                mem::take(&mut self.listed)
            });
        } else if self.lists
            && let Some(test) = line.strip_prefix("    ")
        {
            self.listed.push(test.trim_end().to_owned());
        }
    }
}

impl Panic {
    /// Reads the first line of a panic: `thread 'NAME' (ID) panicked at PLACE:`.
    fn begins(line: &str) -> Option<Self> {
        let (thread, place) = line.strip_prefix("thread '")?.split_once(" panicked at ")?;
        let (name, _) = thread.rsplit_once('\'')?;
        Some(Self {
            thread: name.to_owned(),
            lines: vec![place.to_owned()],
        })
    }

    fn read(&mut self, line: &str) {
        if !line.trim().is_empty() && self.lines.len() <= MESSAGE_LINES_MAX {
            self.lines
                .push(line.trim().chars().take(LINE_CHARS_MAX).collect());
        }
    }
}

/// Whether the line comes after a panic message. Only the first panic of a program has a note about backtraces.
fn ends_message(line: &str) -> bool {
    let ends = [
        "stack backtrace:",
        "note: run with `RUST_BACKTRACE",
        "----",
        "failures:",
        "test result: ",
    ];
    ends.iter().any(|end| line.starts_with(end))
}

/// Returns the test program if the line says that cargo starts one.
fn started(line: &str) -> Option<String> {
    let line = line.trim();
    if let Some(krate) = line.strip_prefix("Doc-tests ") {
        return Some(format!("documentation of {krate}"));
    }
    let (source, program) = line.strip_prefix("Running ")?.rsplit_once(" (")?;
    let program = program.strip_suffix(')')?;
    let (folder, file) = program.rsplit_once(['/', '\\'])?;
    let (name, _) = file.rsplit_once('-')?;
    let source = source.strip_prefix("unittests ").unwrap_or(source);
    let is_built = folder.ends_with("deps");
    is_built.then(|| format!("{name} ({source})"))
}

fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, sequence)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        rest = sequence.split_once('m').map_or("", |(_, after)| after);
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(text: &str) -> Vec<String> {
        let mut outcome = Outcome::default();
        text.lines().for_each(|line| outcome.read(line));
        outcome.failed()
    }

    #[test]
    fn failed_tests_are_named_with_their_program_and_panic_message() {
        let failed = failed(
            "
\u{1b}[1m\u{1b}[92m     Running\u{1b}[0m unittests src/lib.rs (target/debug/deps/signalbox-0a1b)
running 2 tests
test a::one ... ok
test a::two ... ok

test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s

     Running tests/it/main.rs (/elsewhere/debug/deps/it-77)
running 3 tests
test swap::slow ... FAILED
test swap::fast ... ok
test wire::odd ... FAILED

failures:

---- swap::slow stdout ----
thread 'swap::slow' (71) panicked at tests/it/swap.rs:1:1:
assertion `left == right` failed
  left: 1
 right: 2
stack backtrace:
   0: std::panicking::begin_panic
thread 'swap::slow' (71) panicked at tests/it/swap.rs:2:1:
a later panic
failures:
    not::a::test
---- wire::odd stdout ----

failures:
    swap::slow
    wire::odd

test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s

   Doc-tests signalbox
running 1 test
test host/src/config.rs - config::Config (line 7) ... FAILED

failures:
    host/src/config.rs - config::Config (line 7)

test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s

error: 2 targets failed:
    `-p signalbox --test it`
",
        );
        assert_eq!(
            failed,
            [
                "documentation of signalbox: host/src/config.rs - config::Config (line 7)",
                "it (tests/it/main.rs): swap::slow\n      tests/it/swap.rs:1:1:\n      assertion `left == right` failed\n      \
                 left: 1\n      right: 2",
                "it (tests/it/main.rs): wire::odd",
            ]
        );
    }

    #[test]
    fn a_program_that_crashes_is_named() {
        let failed = failed(
            "
     Running tests/it/main.rs (target/debug/deps/it-77)
running 3 tests
test swap::fast ... ok
error: test failed, to rerun pass `-p signalbox --test it`
     Running unittests src/main.rs (target/debug/deps/xtask-77)
test result: ok. 41 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s
",
        );
        assert_eq!(failed, ["it (tests/it/main.rs): it ended without a result"]);
    }

    #[test]
    fn a_panic_without_a_note_does_not_hide_the_result() {
        let failed = failed(
            "
     Running tests/it/main.rs (target/debug/deps/it-77)
thread 'wire::panics_on_purpose' (7) panicked at tests/it/wire.rs:1:1:
on purpose
test wire::panics_on_purpose ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s
",
        );
        assert!(failed.is_empty(), "{failed:?}");
    }

    #[test]
    fn the_output_of_a_failed_test_is_not_read_as_names_of_failures() {
        let failed = failed(
            "
     Running tests/it/main.rs (target/debug/deps/it-77)
failures:

---- cli::nested stdout ----
failures:
    its::own
test result: FAILED. 0 passed; 1 failed; 0 ignored

failures:
    cli::nested

test result: FAILED. 7 passed; 1 failed; 0 ignored
",
        );
        assert_eq!(failed, ["it (tests/it/main.rs): cli::nested"]);
    }
}
