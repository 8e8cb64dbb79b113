//! The steps of a command: what runs, how long it took, and how it ended.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

/// Runs a program to its end with its output on the terminal.
pub(crate) fn run_program(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status();
    let status =
        status.with_context(|| format!("cannot run {name}; is it installed and in PATH?"))?;
    let words: Vec<_> = command
        .get_args()
        .map(|word| word.to_string_lossy())
        .collect();
    ensure!(
        status.success(),
        "`{name} {}` failed with {status}; its output is above",
        words.join(" ")
    );
    Ok(())
}

/// Steps that may need others: a step is skipped if one that it needs did not pass.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    done: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    name: String,
    outcome: Outcome,
    took: Duration,
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed(String),
    /// Names the step that it needs and that did not pass.
    Skipped(String),
}

impl Steps {
    /// Runs a step if all `needed` steps have passed.
    pub(crate) fn step(
        &mut self,
        name: impl Into<String>,
        needed: &[&str],
        work: impl FnOnce() -> anyhow::Result<()>,
    ) {
        let name = name.into();
        let begun = Instant::now();
        let missing = needed.iter().find(|needed| !self.passed(needed));
        let outcome = if let Some(missing) = missing {
            Outcome::Skipped((*missing).to_owned())
        } else {
            eprintln!("== {name}");
            match work() {
                Ok(()) => Outcome::Passed,
                Err(error) => Outcome::Failed(format!("{error:#}")),
            }
        };
        self.done.push(Step {
            name,
            outcome,
            took: begun.elapsed(),
        });
    }

    fn passed(&self, name: &str) -> bool {
        let step = self.done.iter().find(|step| step.name == name);
        step.is_some_and(|step| step.outcome == Outcome::Passed)
    }

    /// Whether every step passed.
    pub(crate) fn all_passed(&self) -> bool {
        self.done.iter().all(|step| step.outcome == Outcome::Passed)
    }

    /// One line for each step.
    pub(crate) fn summary(&self) -> String {
        let line = |Step {
                        name,
                        outcome,
                        took,
                    }: &Step| {
            let seconds = took.as_secs_f64();
            match outcome {
                Outcome::Passed => format!("  ok       {seconds:7.1} s  {name}\n"),
                Outcome::Failed(error) => format!("  FAILED   {seconds:7.1} s  {name}: {error}\n"),
                Outcome::Skipped(needed) => {
                    format!("  skipped            {name}: it needs {needed:?}\n")
                }
            }
        };
        self.done.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn what_needs_a_failed_step_is_skipped_and_the_rest_is_not() {
        let mut steps = Steps::default();
        steps.step("first", &[], || Ok(()));
        assert!(steps.all_passed());
        steps.step("second", &["first"], || bail!("no luck"));
        let mut ran = Vec::new();
        for (name, needed) in [
            ("needs it", &["first", "second"][..]),
            ("needs that", &["needs it"]),
            ("independent", &["first"]),
        ] {
            steps.step(name, needed, || {
                ran.push(name);
                Ok(())
            });
        }
        assert_eq!(ran, ["independent"]);
        assert!(!steps.all_passed());
        let summary = steps.summary();
        let lines: Vec<&str> = summary.lines().collect();
        assert!(lines[0].contains("ok") && lines[1].ends_with("second: no luck"));
        assert!(lines[2].contains("skipped") && lines[2].ends_with("it needs \"second\""));
        assert!(lines[3].ends_with("it needs \"needs it\"") && lines[4].contains("ok"));
    }

    #[test]
    fn a_program_that_is_missing_or_fails_is_named() {
        let missing = run_program(&mut Command::new("no-such-program-here"));
        let missing = missing.expect_err("it cannot run").to_string();
        assert!(missing.contains("no-such-program-here"), "{missing}");
        let failed = run_program(Command::new("cargo").arg("--no-such-option"));
        let failed = failed.expect_err("it fails").to_string();
        assert!(
            failed.contains("`cargo --no-such-option` failed"),
            "{failed}"
        );
    }
}
