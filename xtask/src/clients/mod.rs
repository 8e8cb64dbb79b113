//! `cargo xtask test --clients`: runs the conformance cases against every client SDK. `clients/conformance/README.md`
//! describes them.

mod cases;
pub(crate) mod docs;
mod driver;
mod herd;
mod packages;
mod pattern;
mod peer;
mod proxy;
mod scene;
mod sdks;
mod server;
#[cfg(test)]
mod spec;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;

use crate::programs;
use crate::temp::TempDir;
use crate::workspace::Workspace;
use cases::Case;
use scene::Scene;
use sdks::{SDKS, Sdk};

/// Time limit for anything to happen, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The cases that run at a time. Most of them wait most of the time.
const AT_ONCE: usize = 8;

/// Options of `cargo xtask test` for clients.
#[derive(Debug, Default, Args)]
pub(crate) struct ClientsArgs {
    /// Only test the client SDKs
    #[arg(long, conflicts_with_all = ["filter", "languages"])]
    pub(crate) clients: bool,
    /// Test only this one of the SDKs; may be given several times
    #[arg(long, requires = "clients", value_name = "NAME")]
    client: Vec<String>,
    /// Run only the cases whose name contains this
    #[arg(long, requires = "clients", value_name = "NAME")]
    case: Option<String>,
    /// Only restart three nodes under this many clients of each SDK
    #[arg(long, requires = "clients", conflicts_with = "case", value_name = "CLIENTS",
        value_parser = clap::value_parser!(u16).range(1..=2_000))]
    herd: Option<u16>,
    /// Use this server instead of building one
    #[arg(long, requires = "clients", value_name = "PATH")]
    pub(crate) server: Option<PathBuf>,
}

/// How the cases of an SDK ended.
enum Outcome {
    /// The names of cases that failed, each with the error.
    Ran {
        passed: usize,
        failed: Vec<(String, anyhow::Error)>,
        took: Duration,
    },
    /// The line that says what is missing.
    Skipped(String),
    /// It could not be built, or its own tests failed.
    Broken(anyhow::Error),
}

/// Tests all SDKs, or the chosen ones, with the server's `program`.
pub(crate) fn test(
    workspace: &Workspace,
    program: &Path,
    args: &ClientsArgs,
) -> anyhow::Result<()> {
    let known = |name: &&String| SDKS.iter().any(|sdk| sdk.name == **name);
    if let Some(unknown) = args.client.iter().find(|name| !known(name)) {
        let names: Vec<_> = SDKS.iter().map(|sdk| sdk.name).collect();
        bail!("{unknown} is none of the SDKs: {}", names.join(", "));
    }
    let is_chosen =
        |sdk: &&Sdk| args.client.is_empty() || args.client.iter().any(|name| name == sdk.name);
    let sdks: Vec<_> = SDKS
        .iter()
        .filter(is_chosen)
        .filter(|sdk| sdk.exists(workspace))
        .collect();
    if let Some(count) = args.herd {
        return run_herd(workspace, program, &sdks, count.into());
    }
    let all = cases::read(workspace.root())?.cases;
    let folder = TempDir::new("clients")?;
    let is_wanted = |case: &&Case| {
        args.case
            .as_ref()
            .is_none_or(|part| case.name.contains(part))
    };
    let cases: Vec<_> = all.iter().filter(is_wanted).collect();
    let mut outcomes = Vec::new();
    for sdk in &sdks {
        eprintln!("== client {}", sdk.name);
        outcomes.push((
            sdk.name,
            try_out(workspace, program, folder.path(), sdk, &cases),
        ));
    }
    let herd = if args.case.is_none() {
        let built = sdks
            .iter()
            .zip(&outcomes)
            .filter(|(_, (_, outcome))| matches!(outcome, Outcome::Ran { .. }));
        let built: Vec<_> = built.map(|(sdk, _)| *sdk).collect();
        eprintln!("== restarts under {} clients of each SDK", herd::SMALL);
        herd::run(workspace, program, &built, herd::SMALL)
    } else {
        Ok(())
    };
    print!("{}", summary(&outcomes));
    let failed: Vec<_> = outcomes
        .iter()
        .filter(|(_, outcome)| outcome.is_failure())
        .map(|(name, _)| *name)
        .collect();
    if !failed.is_empty() {
        bail!("{} failed; the cases are named above", failed.join(", "));
    }
    herd.context("restarts under many clients")
}

/// Restarts nodes under `count` clients of each SDK.
fn run_herd(
    workspace: &Workspace,
    program: &Path,
    sdks: &[&Sdk],
    count: usize,
) -> anyhow::Result<()> {
    let mut built = Vec::new();
    for sdk in sdks.iter().filter(|sdk| sdk.has_herd()) {
        match programs::missing(sdk.name, sdk.programs) {
            Some(line) => eprintln!("{line}"),
            None => {
                sdk.build(workspace).context(sdk.name)?;
                built.push(*sdk);
            }
        }
    }
    herd::run(workspace, program, &built, count)
}

fn try_out(
    workspace: &Workspace,
    program: &Path,
    folder: &Path,
    sdk: &Sdk,
    cases: &[&Case],
) -> Outcome {
    if let Some(line) = programs::missing(sdk.name, sdk.programs) {
        return Outcome::Skipped(line);
    }
    if let Err(error) = sdk.prepare(workspace, program) {
        return Outcome::Broken(error);
    }
    let begun = Instant::now();
    let queue = Mutex::new(cases.iter().enumerate());
    let failed = Mutex::new(Vec::new());
    let lock = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        while let Some((index, case)) = lock() {
            let folder = folder.join(format!("{}-{index}", sdk.name));
            let began = Instant::now();
            let scene = Scene::start(case, program, sdk.driver(workspace), folder);
            let played = scene.and_then(|mut scene| scene.play(&case.steps));
            let seconds = began.elapsed().as_secs_f64();
            match played {
                Ok(()) => eprintln!("ok     {seconds:5.1} s  {}", case.name),
                Err(error) => {
                    eprintln!("FAILED {seconds:5.1} s  {}: {error:#}", case.name);
                    let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                    failed.push((case.name.clone(), error));
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(work);
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    Outcome::Ran {
        passed: cases.len() - failed.len(),
        failed,
        took: begun.elapsed(),
    }
}

impl Outcome {
    fn is_failure(&self) -> bool {
        match self {
            Self::Ran { failed, .. } => !failed.is_empty(),
            Self::Skipped(_) => false,
            Self::Broken(_) => true,
        }
    }
}

/// A line for each SDK, and for each case that failed.
fn summary(outcomes: &[(&str, Outcome)]) -> String {
    let mut lines = Vec::new();
    for (name, outcome) in outcomes {
        match outcome {
            Outcome::Ran {
                passed,
                failed,
                took,
            } => {
                let word = if failed.is_empty() {
                    "ok     "
                } else {
                    "FAILED "
                };
                let total = passed + failed.len();
                lines.push(format!(
                    "  {word} {name:<11} {passed} of {total} cases in {:.1} s",
                    took.as_secs_f64()
                ));
                lines.extend(
                    failed
                        .iter()
                        .map(|(case, error)| format!("          {case}: {}", error.root_cause())),
                );
            }
            Outcome::Skipped(line) => lines.push(format!("  {line}")),
            Outcome::Broken(error) => lines.push(format!("  FAILED  {name:<11} {error:#}")),
        }
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_the_cases_that_failed_and_the_sdks_that_were_skipped() {
        let ran = |failed| Outcome::Ran {
            passed: 2,
            failed,
            took: Duration::from_secs(1),
        };
        let outcomes = [
            ("a", ran(Vec::new())),
            (
                "b",
                ran(vec![(
                    "it_waits".to_owned(),
                    anyhow::anyhow!("it does not"),
                )]),
            ),
            (
                "c",
                Outcome::Skipped("SKIPPED c: node is missing; install it".to_owned()),
            ),
            ("d", Outcome::Broken(anyhow::anyhow!("no package"))),
        ];
        let text = summary(&outcomes);
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        assert!(
            lines[0].starts_with("ok") && lines[0].contains("2 of 2 cases"),
            "{text}"
        );
        assert!(
            lines[1].starts_with("FAILED") && lines[1].contains("2 of 3 cases"),
            "{text}"
        );
        assert_eq!(lines[2], "it_waits: it does not");
        assert_eq!(lines[3], "SKIPPED c: node is missing; install it");
        assert!(lines[4].ends_with("no package"), "{text}");
        let failures: Vec<_> = outcomes
            .iter()
            .filter(|(_, outcome)| outcome.is_failure())
            .collect();
        assert_eq!(failures.len(), 2);
    }

    #[test]
    fn an_unknown_sdk_is_an_error() {
        let workspace = Workspace::find().expect("this workspace");
        let args = ClientsArgs {
            client: vec!["cobol".to_owned()],
            ..ClientsArgs::default()
        };
        let error = test(&workspace, Path::new("signalbox"), &args).expect_err("it is unknown");
        assert!(error.to_string().contains("cobol"), "{error}");
    }
}
