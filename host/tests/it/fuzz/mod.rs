//! Mutations of known inputs at every place that accepts untrusted bytes. No input may cause a panic, end the server,
//! or get past a check.
//!
//! In the suite each target runs for a short time, with the same inputs in every run. `TEST_FUZZ_MINUTES=60` continues
//! for this long, with new inputs. The test prints a failing input as small as it can be made; once it is understood,
//! save it as a file in `seeds`, with which every later run begins.

mod answers;
mod config;
mod envelope;
mod inbox;
mod input;
mod talker;
mod upgrade;

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use crate::process::Server;
use input::{Input, mutated};

/// How long to fuzz each target; if it is not set, [`CASES`] inputs are tried.
const MINUTES: &str = "TEST_FUZZ_MINUTES";

/// Inputs per target in the suite.
const CASES: u32 = 300;

/// The log text of a panic.
const PANIC: &str = "a bug in the server";

/// A place that accepts untrusted bytes.
struct Target {
    /// The folder of its seeds.
    name: &'static str,
    /// The words that mutations insert.
    words: &'static [&'static str],
}

/// Runs `check` on the seeds of `target`, then on mutations of them.
fn fuzz(target: &Target, check: impl Fn(&Input) -> Result<(), TestCaseError>) {
    let seeds = seeds(target.name);
    for seed in &seeds {
        check(seed).unwrap_or_else(|error| panic!("{seed:?}: {error}"));
    }
    let inputs = mutated(&seeds, target.words);
    let minutes = std::env::var(MINUTES).ok();
    let minutes = minutes.map(|text| text.parse::<f64>().expect("TEST_FUZZ_MINUTES is a number"));
    let Some(minutes) = minutes else {
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let runner = TestRunner::new_with_rng(settings(), rng);
        return run(runner, &inputs, &check);
    };
    let end = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
    let mut cases = 0;
    while Instant::now() < end {
        run(TestRunner::new(settings()), &inputs, &check);
        cases += CASES;
    }
    println!("{}: {cases} inputs in {minutes} minutes", target.name);
}

fn run(
    mut runner: TestRunner,
    inputs: &impl Strategy<Value = Input>,
    check: impl Fn(&Input) -> Result<(), TestCaseError>,
) {
    let passed = runner.run(inputs, |input| check(&input));
    passed.unwrap_or_else(|error| panic!("{error}"));
}

fn settings() -> Config {
    Config {
        cases: CASES,
        failure_persistence: None,
        ..Config::default()
    }
}

fn seeds(name: &str) -> Vec<Input> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/fuzz/seeds")
        .join(name);
    let files = fs::read_dir(&folder).expect("the folder of the seeds");
    let mut files: Vec<_> = files.map(|file| file.expect("a seed").path()).collect();
    files.sort();
    let read = |file| Input(fs::read(file).expect("a seed"));
    let seeds: Vec<_> = files.into_iter().map(read).collect();
    assert!(!seeds.is_empty(), "no seeds in {}", folder.display());
    seeds
}

/// Checks that the server is alive, and that none of its tasks panicked.
async fn expect_well(mut server: Server) {
    assert_eq!(server.get("/health").await.0, 200);
    server.signal(crate::process::Signal::TERM);
    assert_eq!(server.exit().await.code(), Some(0));
    let log = server.log();
    let panics: Vec<_> = log.iter().filter(|line| line.contains(PANIC)).collect();
    assert!(panics.is_empty(), "{panics:#?}");
}

/// A server that logs only errors.
async fn server(files: &[(&str, &[u8])], config: &str) -> Server {
    let environment = [
        ("WSS_PORT", "0"),
        ("RUST_LOG", "error,signalbox_server::app=info"),
    ];
    let config = crate::harness::with_plugin_cache(config);
    Server::start_with(files, &config, &environment).await
}
