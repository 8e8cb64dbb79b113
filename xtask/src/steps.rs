//! The steps of a command: what runs, how long it took, and how it ended.

use std::panic::resume_unwind;
use std::process::Command;
use std::thread::{self, ScopedJoinHandle};
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

/// A step that runs together with others.
pub(crate) struct Planned<'a> {
    name: String,
    needed: &'a [&'a str],
    work: Box<dyn FnOnce() -> anyhow::Result<()> + Send + 'a>,
}

impl<'a> Planned<'a> {
    pub(crate) fn new(
        name: &str,
        needed: &'a [&'a str],
        work: impl FnOnce() -> anyhow::Result<()> + Send + 'a,
    ) -> Self {
        Self {
            name: name.to_owned(),
            needed,
            work: Box::new(work),
        }
    }
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
        let step = self.run(name.into(), needed, work);
        self.done.push(step);
    }

    /// Runs steps at the same time; none of them may need another. Their output mixes.
    pub(crate) fn at_once(&mut self, planned: Vec<Planned<'_>>) {
        let this = &*self;
        let done: Vec<_> = thread::scope(|scope| {
            let start =
                |Planned { name, needed, work }| scope.spawn(move || this.run(name, needed, work));
            let running: Vec<_> = planned.into_iter().map(start).collect();
            let end = |step: ScopedJoinHandle<'_, Step>| {
                step.join().unwrap_or_else(|panic| resume_unwind(panic))
            };
            running.into_iter().map(end).collect()
        });
        self.done.extend(done);
    }

    /// Returns the error of a step that failed.
    pub(crate) fn error_of(&self, name: &str) -> Option<&str> {
        let step = self.done.iter().find(|step| step.name == name)?;
        match &step.outcome {
            Outcome::Failed(error) => Some(error),
            Outcome::Passed | Outcome::Skipped(_) => None,
        }
    }

    fn run(
        &self,
        name: String,
        needed: &[&str],
        work: impl FnOnce() -> anyhow::Result<()>,
    ) -> Step {
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
        Step {
            name,
            outcome,
            took: begun.elapsed(),
        }
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
    fn steps_that_need_a_failed_step_are_skipped_and_others_are_not() {
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
    fn steps_at_once_run_together_and_keep_their_order() {
        let mut steps = Steps::default();
        let both = std::sync::Barrier::new(2);
        let meet = || {
            both.wait();
            Ok(())
        };
        let fail = || {
            both.wait();
            bail!("no luck")
        };
        steps.at_once(vec![
            Planned::new("bad", &[], fail),
            Planned::new("good", &[], meet),
            Planned::new("needs it", &["bad"], || Ok(())),
        ]);
        let summary = steps.summary();
        let lines: Vec<&str> = summary.lines().collect();
        assert!(lines[0].ends_with("bad: no luck") && lines[1].ends_with("good"));
        assert!(lines[2].contains("skipped"), "{summary}");
        assert_eq!(steps.error_of("bad"), Some("no luck"));
        assert_eq!(steps.error_of("good"), None);
        assert_eq!(steps.error_of("needs it"), None);
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
