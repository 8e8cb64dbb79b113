//! `signalbox plugin test`: runs recorded messages through a component, without a server.
//!
//! Exit codes: 0, all cases passed; 1, a case failed; 2, the cases cannot be read, or the component is refused.

mod cases;
mod compare;
mod outcome;
mod rooms;

use std::{fmt::Write, path::Path, process::ExitCode, sync::Arc, time::Duration};

use serde_json::{Value, json};
use signalbox::{
    config::{InstanceMode, Limits, OnFailure, PluginConfig, PluginLimits},
    plugin::{PluginManager, PluginSet, PluginSlot, Trigger},
};

use self::{
    cases::{Input, Recording, TestCase},
    compare::{FieldDifference, differences},
    rooms::TestRooms,
};
use super::{
    super::EXIT_CONFIG,
    loader::{self, Compiling, with_loader},
    stem,
};

/// The limit of the CPU time of a call: a case may do more than a sample call.
const CALL_CPU_MAX: Duration = Duration::from_secs(1);

pub(super) fn run(file: &Path, events: &Path, config_text: Option<&str>, json: bool) -> ExitCode {
    let recording = match Recording::read(events) {
        Ok(recording) => recording,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let config = config(file, &recording, config_text);
    with_loader(Compiling::Once, async |loader, metrics| {
        let rooms = Arc::<TestRooms>::default();
        rooms.set(&recording.rooms);
        let manager = PluginManager::new(loader.with_rooms(rooms.clone()), metrics);
        let max = Limits::default().plugin_file_bytes_max;
        let refusals = manager.apply(&[config], max, Trigger::Start).await;
        if let Some((_, error)) = refusals.first() {
            eprintln!("{}: refused: {error}", file.display());
            return ExitCode::from(EXIT_CONFIG);
        }
        let plugins = manager.live();
        let mut results = Vec::new();
        for (number, case) in recording.cases.iter().enumerate() {
            rooms.set(case.rooms.as_ref().unwrap_or(&recording.rooms));
            results.push(Tested::run(&plugins, number + 1, case).await);
        }
        if json {
            println!("{}", report(&plugins, &results));
        } else {
            print!("{}", text(&results));
        }
        if results.iter().all(Tested::passed) {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    })
}

fn config(file: &Path, recording: &Recording, config_text: Option<&str>) -> PluginConfig {
    PluginConfig {
        name: stem(file),
        path: file.to_owned(),
        events: recording.events.clone(),
        on_failure: OnFailure::Reject,
        // A single instance, in order, so that every run is the same.
        instances: InstanceMode::Single,
        limits: PluginLimits {
            call_cpu_max: CALL_CPU_MAX,
            ..loader::limits()
        },
        rollout: None,
        config_json: config_text
            .unwrap_or_else(|| recording.config_text())
            .to_owned(),
    }
}

/// A case and its result.
struct Tested<'c> {
    case: &'c TestCase,
    found: Value,
    differences: Vec<FieldDifference>,
}

impl<'c> Tested<'c> {
    async fn run(plugins: &Arc<PluginSet>, number: usize, case: &'c TestCase) -> Self {
        let (found, differences) = match case.input() {
            Ok(input) => {
                let found = outcome::run(plugins, number, &input).await;
                let differences = differences(&expected(case, &input), &found);
                (found, differences)
            }
            // Already checked when the file was read.
            Err(error) => (error.into(), Vec::new()),
        };
        Self {
            case,
            found,
            differences,
        }
    }

    fn passed(&self) -> bool {
        self.differences.is_empty()
    }
}

/// The outcome that the case expects, with its short form written out.
fn expected(case: &TestCase, input: &Input<'_>) -> Value {
    match (input, case.expect["delivered"].as_str()) {
        (Input::Message(message), Some("unchanged")) => {
            json!({"delivered": outcome::as_sent(message)})
        }
        _ => case.expect.clone(),
    }
}

fn text(results: &[Tested<'_>]) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    for tested in results {
        let verdict = if tested.passed() { "ok  " } else { "FAIL" };
        let _ = writeln!(text, "{verdict}  {}", tested.case.name);
        if tested.case.expect.is_object() && is_another_outcome(tested) {
            let _ = writeln!(text, "        expected {}", tested.case.expect);
            let _ = writeln!(text, "        found    {}", tested.found);
            continue;
        }
        for FieldDifference {
            path,
            expected,
            found,
        } in &tested.differences
        {
            let (expected, found) = (or_nothing(expected), or_nothing(found));
            let _ = writeln!(text, "        {path}: expected {expected}, found {found}");
        }
    }
    let failed = results.iter().filter(|tested| !tested.passed()).count();
    let _ = writeln!(text, "{} cases, {failed} failed", results.len());
    text
}

/// Whether a different kind of outcome was found, so that comparing fields is pointless.
fn is_another_outcome(tested: &Tested<'_>) -> bool {
    let outcome = |value: &Value| value.as_object()?.keys().next().cloned();
    outcome(&tested.case.expect) != outcome(&tested.found)
}

fn or_nothing(value: &Option<Value>) -> String {
    value
        .as_ref()
        .map_or_else(|| "nothing".to_owned(), Value::to_string)
}

fn report(plugins: &PluginSet, results: &[Tested<'_>]) -> Value {
    let version = plugins.slots().iter().find_map(PluginSlot::version);
    let cases: Vec<Value> = results
        .iter()
        .map(|tested| {
            let differences: Vec<Value> = tested
                .differences
                .iter()
                .map(|difference| {
                    json!({
                        "path": difference.path, "expected": difference.expected,
                        "found": difference.found,
                    })
                })
                .collect();
            json!({
                "name": tested.case.name, "passed": tested.passed(), "expected": tested.case.expect,
                "found": tested.found, "differences": differences,
            })
        })
        .collect();
    let failed = results.iter().filter(|tested| !tested.passed()).count();
    json!({
        "sha256": version.map(|version| version.hash().to_string()), "cases": cases,
        "passed": results.len() - failed, "failed": failed,
    })
}
