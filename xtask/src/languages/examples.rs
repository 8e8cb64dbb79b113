//! The examples: each is built in its own folder and tested with its own cases.

use std::path::PathBuf;
use std::process::Command;

use super::Steps;
use super::signalbox::Signalbox;
use crate::plugins;
use crate::steps::run_program;
use crate::workspace::Workspace;

/// The example in each language, and a configuration that it starts with.
const EXAMPLES: &[(&str, &str, &str)] = &[
    ("typescript", "slash-commands", "{}"),
    ("python", "json-schema", r#"{"schemas":{"a":{}}}"#),
    ("go", "presence", "{}"),
    ("c", "mask", "{}"),
];

/// The Rust example is part of this workspace.
const RUST_EXAMPLE: &str = "moderation";

/// Builds the example of `language`, if there is one, and runs its cases.
pub(super) fn run(
    signalbox: &Signalbox,
    workspace: &Workspace,
    language: &str,
    steps: &mut Steps,
) -> anyhow::Result<()> {
    let folder = |name: &str| -> PathBuf { workspace.root().join("examples").join(name) };
    if language == "rust" {
        steps.step("example", || {
            plugins::build_examples(workspace)?;
            let component = workspace.plugins_dir().join(format!("{RUST_EXAMPLE}.wasm"));
            let component = component.to_string_lossy();
            let words = ["plugin", "test", &component, "--events", "cases.json"];
            signalbox.run(&folder(RUST_EXAMPLE), &words)
        })?;
    }
    for (_, name, config) in EXAMPLES.iter().filter(|(of, ..)| *of == language) {
        steps.step("example", || {
            signalbox.run(&folder(name), &["plugin", "build", "--config-text", config])?;
            signalbox.run(&folder(name), &["plugin", "test"])
        })?;
    }
    if language == "go" {
        // The part of the SDK that needs no server.
        steps.step("SDK's tests", || {
            let mut go = Command::new("go");
            go.args(["test", "./internal/strictjson"])
                .current_dir(workspace.root().join("sdk/go"));
            run_program(&mut go)
        })?;
    }
    Ok(())
}
