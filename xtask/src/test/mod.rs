//! `cargo xtask test`: prepares everything that the tests need, then runs all tests.

mod cargo;
mod load;
mod outcome;

use std::env;
use std::process::ExitCode;
use std::thread;

use anyhow::Context as _;
use clap::Args;

use crate::clients::{self, ClientsArgs};
use crate::languages;
use crate::plugins;
use crate::python;
use crate::requirements::{self, PROGRAMS_OF_TESTS, WASM_TARGET};
use crate::steps::{Planned, Steps, run_program};
use crate::workspace::Workspace;
use load::Load;
pub(crate) use load::spin;

/// Steps that other steps need.
const TARGET: &str = "wasm target";
const PROGRAMS: &str = "programs of the tests";
const PACKAGES: &str = "python packages";
const PLUGINS: &str = "plugins";
const EXAMPLES: &str = "example plugins";
const GUESTS: &str = "test guests";
const BUILD: &str = "build";

/// How everything is built. With another choice of packages, cargo recompiles dependencies with other features.
const BUILD_OF_TESTS: &[&str] = &["test", "--workspace", "--no-run"];

/// How the server and the load generator are built: with their tests.
const BUILD_OF_PROGRAMS: &[&str] = &[
    "test",
    "--workspace",
    "--no-run",
    "--test",
    "it",
    "--test",
    "load",
];

/// libtest's variable for the number of tests that run at a time.
const THREADS_VARIABLE: &str = "RUST_TEST_THREADS";

/// Options of `cargo xtask test`.
#[derive(Debug, Default, Args)]
pub(crate) struct TestArgs {
    /// Run only tests whose name contains this
    #[arg(long)]
    filter: Option<String>,
    /// Only build and run a plugin in each language, from nothing to live
    #[arg(long, conflicts_with = "filter")]
    languages: bool,
    /// Test only this one of the languages; may be given several times
    #[arg(long, requires = "languages", value_name = "NAME")]
    language: Vec<String>,
    #[command(flatten)]
    clients: ClientsArgs,
    /// Run everything this many times, next to a process that spins on each core
    #[arg(long, value_name = "TIMES", value_parser = clap::value_parser!(u32).range(1..))]
    repeat: Option<u32>,
    /// Further arguments for the test programs, e.g. --nocapture
    #[arg(last = true)]
    libtest_args: Vec<String>,
}

impl TestArgs {
    /// If no targets are chosen, cargo runs the tests of all targets and those in the documentation.
    fn cargo_args(&self) -> Vec<&str> {
        let mut words = vec!["test", "--workspace", "--no-fail-fast"];
        words.extend(self.filter.as_deref());
        if !self.libtest_args.is_empty() {
            words.push("--");
            words.extend(self.libtest_args.iter().map(String::as_str));
        }
        words
    }
}

/// Runs the steps and prints how each ended, how long it took, and what failed.
pub(crate) fn run(workspace: &Workspace, args: &TestArgs) -> anyhow::Result<ExitCode> {
    let mut steps = Steps::default();
    prepare(&mut steps, workspace, args);
    let load = args.repeat.map(|_| Load::start()).transpose()?;
    let mut failed = Vec::new();
    for run in 1..=args.repeat.unwrap_or(1) {
        let run = args.repeat.map(|_| run);
        test(&mut steps, workspace, args, run, &mut failed);
    }
    drop(load);
    print!("{}", summary(&steps, &failed));
    if steps.all_passed() {
        Ok(ExitCode::SUCCESS)
    } else {
        Ok(ExitCode::FAILURE)
    }
}

/// Installs and builds what the tests need.
fn prepare(steps: &mut Steps, workspace: &Workspace, args: &TestArgs) {
    if args.clients.clients {
        if args.clients.server.is_none() {
            steps.step(BUILD, &[], || {
                run_program(workspace.cargo().args(BUILD_OF_PROGRAMS))
            });
        }
        return;
    }
    requirements::announce(&[WASM_TARGET]);
    if !args.languages {
        requirements::announce(PROGRAMS_OF_TESTS);
    }
    steps.step(TARGET, &[], || requirements::ensure(&[WASM_TARGET]));
    if !args.languages {
        steps.step(PROGRAMS, &[], || requirements::ensure(PROGRAMS_OF_TESTS));
        steps.step(PACKAGES, &[], || python::install(workspace));
        steps.step(PLUGINS, &[TARGET], || plugins::build_shipped(workspace));
        steps.step(EXAMPLES, &[TARGET], || plugins::build_examples(workspace));
        steps.step(GUESTS, &[TARGET], || plugins::build_guests(workspace));
    }
    let words = if args.languages {
        BUILD_OF_PROGRAMS
    } else {
        BUILD_OF_TESTS
    };
    steps.step(BUILD, &[], || run_program(workspace.cargo().args(words)));
}

/// Runs everything once. Failures are added to `failed`, with the run in which they occurred.
fn test(
    steps: &mut Steps,
    workspace: &Workspace,
    args: &TestArgs,
    run: Option<u32>,
    failed: &mut Vec<String>,
) {
    let suffix = run.map_or_else(String::new, |run| format!(", run {run}"));
    let [tests, languages, clients] =
        ["tests", "languages", "clients"].map(|name| format!("{name}{suffix}"));
    let is_all = args.filter.is_none() && !args.languages && !args.clients.clients;
    let mut failed_now = Vec::new();
    // They share only the programs that were built. Each waits often, so together they take less time.
    let mut parts = Vec::new();
    if !args.languages && !args.clients.clients {
        let work = || run_tests(workspace, args, &mut failed_now);
        let needed = &[PROGRAMS, PACKAGES, PLUGINS, EXAMPLES, GUESTS, BUILD];
        parts.push(Planned::new(&tests, needed, work));
    }
    if args.languages || is_all {
        let work = || test_languages(workspace, &args.language);
        parts.push(Planned::new(&languages, &[TARGET, BUILD], work));
    }
    if args.clients.clients || is_all {
        let needed: &[&str] = args.clients.server.as_ref().map_or(&[BUILD], |_| &[]);
        let work = || test_clients(workspace, &args.clients);
        parts.push(Planned::new(&clients, needed, work));
    }
    steps.at_once(parts);
    for (name, step) in [("languages", &languages), ("clients", &clients)] {
        let error = steps.error_of(step);
        failed_now.extend(error.map(|error| format!("{name}: {error}")));
    }
    let run = run.map_or_else(String::new, |run| format!("run {run}: "));
    failed.extend(failed_now.iter().map(|name| format!("{run}{name}")));
}

/// Adds the names of the failed tests to `failed`.
fn run_tests(
    workspace: &Workspace,
    args: &TestArgs,
    failed: &mut Vec<String>,
) -> anyhow::Result<()> {
    let mut cargo = workspace.cargo();
    cargo.args(args.cargo_args());
    if env::var_os(THREADS_VARIABLE).is_none() {
        cargo.env(THREADS_VARIABLE, test_threads()?.to_string());
    }
    cargo::run(cargo, failed)
}

/// Three tests for each core: most of them wait for nodes and Redis most of their time.
fn test_threads() -> anyhow::Result<usize> {
    Ok(3 * cores()?)
}

fn cores() -> anyhow::Result<usize> {
    let cores = thread::available_parallelism().context("the number of cores is unknown")?;
    Ok(cores.get())
}

fn test_languages(workspace: &Workspace, chosen: &[String]) -> anyhow::Result<()> {
    let program = |name| workspace.program("debug", name);
    let (server, load) = (program("signalbox"), program("signalbox-bench"));
    languages::test(workspace, &server, &load, chosen)
}

fn test_clients(workspace: &Workspace, args: &ClientsArgs) -> anyhow::Result<()> {
    let program = match &args.server {
        // The server runs in folders of its own.
        Some(path) => path
            .canonicalize()
            .with_context(|| format!("there is no {}", path.display()))?,
        None => workspace.program("debug", "signalbox"),
    };
    clients::test(workspace, &program, args)
}

/// Returns a line for each step, then one for each test that failed.
fn summary(steps: &Steps, failed: &[String]) -> String {
    let mut text = steps.summary();
    if !failed.is_empty() {
        text.push_str("failed:\n");
        text.extend(failed.iter().map(|name| format!("  {name}\n")));
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn a_filter_comes_before_the_arguments_of_the_test_programs() {
        let args = TestArgs {
            filter: Some("swap".to_owned()),
            libtest_args: vec!["--nocapture".to_owned()],
            ..TestArgs::default()
        };
        let without = ["test", "--workspace", "--no-fail-fast"];
        let with = [&without[..], &["swap", "--", "--nocapture"]].concat();
        assert_eq!(args.cargo_args(), with);
        assert_eq!(TestArgs::default().cargo_args(), without);
    }

    #[test]
    fn the_last_lines_name_all_failures() {
        let mut steps = Steps::default();
        steps.step("tests, run 1", &[], || {
            bail!("1 failed; they are named below")
        });
        let failed = ["run 1: it (tests/it/main.rs): swap::slow".to_owned()];
        let text = summary(&steps, &failed);
        assert!(text.starts_with("  FAILED "), "{text}");
        assert!(text.ends_with("failed:\n  run 1: it (tests/it/main.rs): swap::slow\n"));
        assert!(!summary(&steps, &[]).contains("failed:\n"));
    }
}
