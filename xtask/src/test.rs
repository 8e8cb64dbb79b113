//! `cargo xtask test`: everything that the tests need, then all tests.

use std::process::ExitCode;

use clap::Args;

use crate::languages;
use crate::plugins;
use crate::python;
use crate::requirements;
use crate::steps::{Steps, run_program};
use crate::workspace::Workspace;

/// Options of `cargo xtask test`.
#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// Run only tests whose name contains this
    #[arg(long)]
    filter: Option<String>,
    /// Only build and run a plugin in each language, from nothing to live
    #[arg(long, conflicts_with = "filter")]
    languages: bool,
    /// Of the languages only this one; may be given several times
    #[arg(long, requires = "languages", value_name = "NAME")]
    language: Vec<String>,
    /// Further arguments for the test programs, e.g. --nocapture
    #[arg(last = true)]
    libtest_args: Vec<String>,
}

impl TestArgs {
    /// Without a choice of targets, cargo runs the tests of all of them and the documentation's.
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

/// Runs the steps and prints how each ended and how long it took.
pub(crate) fn run(workspace: &Workspace, args: &TestArgs) -> anyhow::Result<ExitCode> {
    let mut steps = Steps::default();
    if args.languages {
        // As the tests build it: with another choice cargo compiles its dependencies anew, with other features.
        steps.step("server", || {
            // The load generator comes with its own tests.
            let words = [
                "test",
                "--workspace",
                "--test",
                "it",
                "--test",
                "load",
                "--no-run",
            ];
            run_program(workspace.cargo().args(words))
        });
        steps.step("languages", || test_languages(workspace, &args.language));
        return Ok(conclude(&steps));
    }
    steps.step("requirements", || {
        requirements::ensure(requirements::FOR_TESTS)
    });
    steps.step("python packages", || python::install(workspace));
    steps.step("plugins", || plugins::build_shipped(workspace));
    steps.step("example plugins", || plugins::build_examples(workspace));
    steps.step("test guests", || plugins::build_guests(workspace));
    steps.step("tests", || {
        run_program(workspace.cargo().args(args.cargo_args()))
    });
    // With the server that the tests have built, and while nothing else is compiled.
    if args.filter.is_none() {
        steps.step("languages", || test_languages(workspace, &[]));
    }
    Ok(conclude(&steps))
}

fn test_languages(workspace: &Workspace, chosen: &[String]) -> anyhow::Result<()> {
    let program = |name| workspace.program("debug", name);
    languages::test(
        workspace,
        &program("signalbox"),
        &program("signalbox-bench"),
        chosen,
    )
}

fn conclude(steps: &Steps) -> ExitCode {
    println!("{}", steps.summary().trim_end());
    if steps.all_passed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_comes_before_the_arguments_of_the_test_programs() {
        let args = TestArgs {
            filter: Some("swap".to_owned()),
            languages: false,
            language: Vec::new(),
            libtest_args: vec!["--nocapture".to_owned()],
        };
        assert_eq!(
            args.cargo_args(),
            [
                "test",
                "--workspace",
                "--no-fail-fast",
                "swap",
                "--",
                "--nocapture"
            ]
        );
        let all = TestArgs {
            filter: None,
            languages: false,
            language: Vec::new(),
            libtest_args: Vec::new(),
        };
        assert_eq!(all.cargo_args(), ["test", "--workspace", "--no-fail-fast"]);
    }
}
