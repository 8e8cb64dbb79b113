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

use anyhow::ensure;

pub(crate) use crate::cluster::child::server_address;
use crate::temp::TempDir;
use crate::workspace::Workspace;
use chain::Effort;
pub(crate) use measure::measure;
use signalbox::{Missing, Signalbox};

/// The languages that `signalbox plugin new` knows; those that build fast come first.
const LANGUAGES: &[&str] = &["javascript", "typescript", "go", "c", "rust", "python"];

/// The languages that are tested at a time. Each waits for its server some of the time.
const AT_ONCE: usize = 3;

/// The work for a row of plugins: enough to see that each can be replaced in it.
const CHAIN: Effort = Effort {
    rate: 200,
    time: Duration::from_secs(2),
    swaps: 2,
};

/// The steps that a language has completed, each with the time that it took.
#[derive(Default)]
struct Steps(Vec<(&'static str, Duration)>);

impl Steps {
    /// Completes the steps in `work`.
    fn of(work: impl FnOnce(&mut Self) -> anyhow::Result<()>) -> anyhow::Result<Self> {
        let mut steps = Self::default();
        work(&mut steps).map(|()| steps)
    }

    fn step(
        &mut self,
        name: &'static str,
        work: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let begun = Instant::now();
        work()?;
        self.0.push((name, begun.elapsed()));
        Ok(())
    }
}

/// Tests all languages, or those in `chosen`, with the server's `program` and the load generator `load`.
pub(crate) fn test(
    workspace: &Workspace,
    program: &Path,
    load: &Path,
    chosen: &[String],
) -> anyhow::Result<()> {
    for name in chosen {
        ensure!(
            LANGUAGES.contains(&name.as_str()),
            "{name} is none of the languages: {}",
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
    let passed = outcomes.iter().filter(|(_, outcome)| outcome.is_ok());
    let passed: Vec<_> = passed.map(|(name, _)| (*name).to_owned()).collect();
    if passed.len() > 1 {
        eprintln!("== {} in a row", passed.join(", "));
        let seen = chain::run(&signalbox, load, &passed, &CHAIN)?;
        println!("  ok      {}", seen.summary());
    }
    let has_failed =
        |outcome: &anyhow::Result<_>| outcome.as_ref().is_err_and(|error| !error.is::<Missing>());
    let failed = outcomes.iter().filter(|(_, outcome)| has_failed(outcome));
    let failed: Vec<_> = failed.map(|(name, _)| *name).collect();
    ensure!(
        failed.is_empty(),
        "{} of {} languages failed: {}",
        failed.len(),
        outcomes.len(),
        failed.join(", ")
    );
    Ok(())
}

/// Runs everything for one language.
fn try_out(signalbox: &Signalbox, workspace: &Workspace, language: &str) -> anyhow::Result<Steps> {
    let Steps(mut done) = Steps::of(|steps| journey::run(signalbox, language, steps))?;
    conformance::create(signalbox, workspace, language)?;
    // These use different projects.
    let conformance = |steps: &mut Steps| {
        conformance::run(signalbox, language, steps)?;
        guide::run(signalbox, workspace, language, steps)
    };
    let others = |steps: &mut Steps| {
        mistakes::run(signalbox, language, steps)?;
        examples::run(signalbox, workspace, language, steps)
    };
    let (conformance, others) = thread::scope(|scope| {
        let conformance = scope.spawn(|| Steps::of(conformance));
        let others = Steps::of(others);
        let conformance = conformance.join();
        (
            conformance.unwrap_or_else(|panic| resume_unwind(panic)),
            others,
        )
    });
    match (conformance, others) {
        (Ok(conformance), Ok(others)) => {
            done.extend(conformance.0);
            done.extend(others.0);
            Ok(Steps(done))
        }
        (Err(first), Err(second)) => Err(first.context(format!("{second:#}, and"))),
        (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error),
    }
}

/// Calls `work` with each of `items`, [`AT_ONCE`] at a time and beginning with the last ones, which take longest. Returns
/// the results in the order of `items`.
fn at_once<T: Send>(
    items: &[&'static str],
    work: impl Fn(&'static str) -> T + Sync,
) -> Vec<(&'static str, T)> {
    let left = Mutex::new(items.to_vec());
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let worker = || -> Vec<_> { from_fn(next).map(|item| (item, work(item))).collect() };
    let mut done: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(worker)).collect();
        let results = workers.into_iter().map(|worker| worker.join());
        results
            .flat_map(|done| done.unwrap_or_else(|panic| resume_unwind(panic)))
            .collect()
    });
    done.sort_by_key(|(item, _)| items.iter().position(|other| other == item));
    done
}

/// Returns one line for each language.
fn summary(outcomes: &[(&str, anyhow::Result<Steps>)]) -> String {
    let line = |(language, outcome): &(&str, anyhow::Result<Steps>)| match outcome {
        Ok(Steps(steps)) => {
            let journey = steps
                .iter()
                .take_while(|(name, _)| *name != conformance::BUILD);
            let sum: Duration = journey.map(|(_, took)| took).sum();
            let took = |(name, took): &(_, Duration)| format!("{name} {:.1}", took.as_secs_f64());
            let (sum, steps) = (
                sum.as_secs_f64(),
                steps.iter().map(took).collect::<Vec<_>>(),
            );
            format!(
                "  ok      {language:<11} live after {sum:.1} s ({} s)\n",
                steps.join(", ")
            )
        }
        Err(error) if error.is::<Missing>() => format!("  SKIPPED {language:<11} {error}\n"),
        Err(error) => format!("  FAILED  {language:<11} {error:#}\n"),
    };
    outcomes.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_language_without_its_tools_is_skipped_and_never_passed() {
        let steps = [("new", 1), ("build", 2), (conformance::BUILD, 9)];
        let steps = steps.map(|(name, seconds)| (name, Duration::from_secs(seconds)));
        let missing = Missing("make is missing: install it".to_owned());
        let text = summary(&[
            ("go", Ok(Steps(steps.to_vec()))),
            ("c", Err(missing.into())),
            ("rust", Err(anyhow::anyhow!("no"))),
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
    fn several_are_at_work_at_once_and_the_results_keep_their_order() {
        let all = std::sync::Barrier::new(AT_ONCE);
        let items = &["a", "b", "c", "d", "e", "f"][..2 * AT_ONCE];
        let done = at_once(items, |item| {
            all.wait();
            item.to_uppercase()
        });
        let expected: Vec<_> = items
            .iter()
            .map(|item| (*item, item.to_uppercase()))
            .collect();
        assert_eq!(done, expected);
    }

    #[test]
    fn an_unknown_language_is_an_error() {
        let workspace = Workspace::find().expect("this workspace");
        let program = Path::new("signalbox");
        let error = test(&workspace, program, program, &["cobol".to_owned()]);
        assert!(error.is_err_and(|error| error.to_string().contains("cobol")));
    }
}
