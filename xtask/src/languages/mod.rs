//! `cargo xtask test --languages`: goes from nothing to a live plugin in each language, as an author would, and runs
//! the conformance cases. If the machine lacks a tool, the tool is named and the language is reported as skipped.

mod chain;
mod client;
mod conformance;
mod examples;
mod guide;
mod journey;
mod measure;
mod mistakes;
mod node;
mod signalbox;

use std::iter::from_fn;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::bail;

use crate::temp::TempDir;
use crate::workspace::Workspace;
use chain::Effort;
pub(crate) use measure::measure;
pub(crate) use node::server_address;
use signalbox::{Ended, Signalbox};

/// The languages that `signalbox plugin new` knows; those that build fast come first.
const LANGUAGES: &[&str] = &["javascript", "typescript", "go", "c", "rust", "python"];

/// The work for a row of plugins: enough to see that each can be replaced in it.
const CHAIN: Effort = Effort {
    rate: 500,
    time: Duration::from_secs(2),
    swaps: 2,
};

/// The result for a language.
enum Outcome {
    Passed(Vec<Step>),
    /// Names the missing tool, and how to get it.
    Skipped(String),
    Failed(anyhow::Error),
}

/// A completed step, and how long it took.
struct Step {
    name: &'static str,
    took: Duration,
}

/// The steps that were completed before something was missing or failed.
#[derive(Default)]
struct Steps(Vec<Step>);

/// Why a language did not complete all steps.
enum Stopped {
    Missing(String),
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Stopped {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl Steps {
    fn step<T>(
        &mut self,
        name: &'static str,
        work: impl FnOnce() -> Result<T, Stopped>,
    ) -> Result<T, Stopped> {
        let begun = Instant::now();
        let done = work()?;
        let took = begun.elapsed();
        self.0.push(Step { name, took });
        Ok(done)
    }
}

/// Tests all languages, or those in `chosen`, with the server's `program` and the load generator `load`.
pub(crate) fn test(
    workspace: &Workspace,
    program: &Path,
    load: &Path,
    chosen: &[String],
) -> anyhow::Result<()> {
    if let Some(unknown) = chosen
        .iter()
        .find(|name| !LANGUAGES.contains(&name.as_str()))
    {
        bail!(
            "{unknown} is none of the languages: {}",
            LANGUAGES.join(", ")
        );
    }
    let folder = TempDir::new("languages")?;
    let signalbox = Signalbox::new(program, folder.path());
    let is_chosen =
        |language: &&str| chosen.is_empty() || chosen.iter().any(|name| name == language);
    let languages: Vec<&'static str> = LANGUAGES.iter().copied().filter(is_chosen).collect();
    let outcomes = at_once(&languages, |language| {
        eprintln!("== {language}");
        let outcome = try_out(&signalbox, workspace, language);
        eprintln!("== {language} is done");
        outcome
    });
    println!("{}", summary(&outcomes).trim_end());
    let passed = |(name, outcome): &(&str, Outcome)| {
        matches!(outcome, Outcome::Passed(_)).then(|| (*name).to_owned())
    };
    let passed: Vec<_> = outcomes.iter().filter_map(passed).collect();
    if passed.len() > 1 {
        eprintln!("== {} in a row", passed.join(", "));
        let seen = chain::run(&signalbox, load, &passed, &CHAIN)?;
        println!("  ok      {}", seen.summary());
    }
    let failed = |(name, outcome): &(&'static str, Outcome)| {
        matches!(outcome, Outcome::Failed(_)).then_some(*name)
    };
    let failed: Vec<_> = outcomes.iter().filter_map(failed).collect();
    if !failed.is_empty() {
        bail!(
            "{} of {} languages failed: {}",
            failed.len(),
            outcomes.len(),
            failed.join(", ")
        );
    }
    Ok(())
}

/// Runs everything for one language.
fn try_out(signalbox: &Signalbox, workspace: &Workspace, language: &'static str) -> Outcome {
    let mut steps = Steps::default();
    let tried = journey::run(signalbox, language, &mut steps)
        .and_then(|()| conformance::run(signalbox, workspace, language, &mut steps))
        .and_then(|()| guide::run(signalbox, workspace, language, &mut steps))
        .and_then(|()| mistakes::run(signalbox, language, &mut steps))
        .and_then(|()| examples::run(signalbox, workspace, language, &mut steps));
    match tried {
        Ok(()) => Outcome::Passed(steps.0),
        Err(Stopped::Missing(tool)) => Outcome::Skipped(tool),
        Err(Stopped::Failed(error)) => Outcome::Failed(error),
    }
}

/// Calls `work` with each of `items`, two at a time and beginning with the last ones, which take longest. Returns the
/// results in the order of `items`.
fn at_once<T: Send>(
    items: &[&'static str],
    work: impl Fn(&'static str) -> T + Sync,
) -> Vec<(&'static str, T)> {
    let left = Mutex::new(items.to_vec());
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let worker = || -> Vec<_> { from_fn(next).map(|item| (item, work(item))).collect() };
    let mut done = thread::scope(|scope| {
        let other = scope.spawn(worker);
        let mut done = worker();
        done.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        done
    });
    done.sort_by_key(|(item, _)| items.iter().position(|other| other == item));
    done
}

/// Returns one line for each language.
fn summary(outcomes: &[(&str, Outcome)]) -> String {
    let mut lines = String::new();
    for (language, outcome) in outcomes {
        let line = match outcome {
            Outcome::Passed(steps) => {
                let journey = steps
                    .iter()
                    .take_while(|step| step.name != conformance::BUILD);
                let sum: Duration = journey.map(|step| step.took).sum();
                let steps: Vec<_> = steps
                    .iter()
                    .map(|step| format!("{} {:.1}", step.name, step.took.as_secs_f64()))
                    .collect();
                format!(
                    "  ok      {language:<11} live after {:.1} s ({} s)\n",
                    sum.as_secs_f64(),
                    steps.join(", ")
                )
            }
            Outcome::Skipped(tool) => format!("  SKIPPED {language:<11} {tool}\n"),
            Outcome::Failed(error) => format!("  FAILED  {language:<11} {error:#}\n"),
        };
        lines.push_str(&line);
    }
    lines
}

/// Converts the result of a `signalbox` command that had to succeed.
fn succeeded(ended: anyhow::Result<Ended>) -> Result<(), Stopped> {
    match ended? {
        Ended::Well => Ok(()),
        Ended::Missing(tool) => Err(Stopped::Missing(tool)),
        Ended::Badly(error) => Err(Stopped::Failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_language_without_its_tools_is_skipped_and_never_passed() {
        let step = |name, seconds| Step {
            name,
            took: Duration::from_secs(seconds),
        };
        let text = summary(&[
            (
                "go",
                Outcome::Passed(vec![
                    step("new", 1),
                    step("build", 2),
                    step(conformance::BUILD, 9),
                ]),
            ),
            (
                "c",
                Outcome::Skipped("make is missing: install it".to_owned()),
            ),
            ("rust", Outcome::Failed(anyhow::anyhow!("no"))),
        ]);
        let lines: Vec<_> = text.lines().collect();
        assert!(
            lines[0].contains("ok") && lines[0].contains("live after 3.0 s"),
            "{text}"
        );
        assert!(lines[1].contains("SKIPPED") && lines[1].ends_with("make is missing: install it"));
        assert!(lines[2].contains("FAILED") && lines[2].ends_with("no"));
    }

    #[test]
    fn two_are_at_work_at_once_and_the_results_keep_their_order() {
        let both = std::sync::Barrier::new(2);
        let done = at_once(&["a", "b", "c", "d"], |item| {
            both.wait();
            item.to_uppercase()
        });
        let expected = [("a", "A"), ("b", "B"), ("c", "C"), ("d", "D")];
        assert_eq!(done, expected.map(|(item, done)| (item, done.to_owned())));
    }

    #[test]
    fn a_language_that_nobody_knows_is_an_error() {
        let workspace = Workspace::find().expect("this workspace");
        let program = Path::new("signalbox");
        let error = test(&workspace, program, program, &["cobol".to_owned()]);
        assert!(error.is_err_and(|error| error.to_string().contains("cobol")));
    }
}
