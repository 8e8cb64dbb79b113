//! Mistakes that authors make, and the messages about them: from `signalbox plugin build`, in the server's log, and
//! from its admin API.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use serde_json::json;

use super::client::Client;
use super::node::{Node, Served};
use super::signalbox::Signalbox;
use super::{Steps, journey};

/// A change to the template of a language, and the messages about it.
#[derive(Deserialize)]
struct Mistake {
    language: String,
    file: String,
    /// Pairs of a text and its replacement.
    changes: Vec<(String, String)>,
    /// The exit code of `plugin build`: 1 if nothing is built, 2 if the component is refused, 0 if only calls fail.
    exit_code: i32,
    /// Texts that must be in its output, among others.
    errors: Vec<String>,
    /// Whether a call never ends.
    #[serde(default)]
    endless: bool,
}

/// The messages about an endless call, one of which must be in the output: on a busy machine the call reaches
/// `call_time_max` before `call_cpu_max`.
const ENDLESS: [&str; 2] = [
    "more CPU time than allowed (100ms, `call_cpu_max`",
    "the call took longer than allowed (`call_time_max`",
];

/// The mistakes.
const MISTAKES: &str = include_str!("mistakes.json");

/// Texts that report an exception while messages flow, and the place in the code.
const LIVE: &[(&str, [&str; 2])] = &[
    ("javascript", ["ReferenceError", "validate"]),
    ("python", ["NameError", "in validate"]),
];

/// Makes the mistakes of `language`, if there are any, in the project that the journey has left. The last one is
/// pushed.
pub(super) fn run(signalbox: &Signalbox, language: &str, steps: &mut Steps) -> anyhow::Result<()> {
    let mut mistakes: Vec<Mistake> = serde_json::from_str(MISTAKES).context("the mistakes")?;
    mistakes.retain(|mistake| mistake.language == language);
    if mistakes.is_empty() {
        return Ok(());
    }
    let name = journey::name(language);
    let folder = signalbox.folder(&name);
    let component = folder.join("dist").join(format!("{name}.wasm"));
    steps.step("mistakes", || {
        let good = fs::read(&component)?;
        for mistake in &mistakes {
            make(signalbox, &folder, &name, mistake)?;
        }
        if let Some((_, parts)) = LIVE.iter().find(|(of, _)| *of == language) {
            fail_live(signalbox, &folder, &name, parts)?;
        }
        // Later steps use the original plugin.
        fs::write(&component, good).context("the component")
    })
}

/// Changes the source, builds, checks the output, and changes the source back.
fn make(signalbox: &Signalbox, folder: &Path, name: &str, mistake: &Mistake) -> anyhow::Result<()> {
    let file = folder.join(&mistake.file);
    let good = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let mut bad = good.clone();
    for (from, to) in &mistake.changes {
        let from = from.replace("NAME", name);
        ensure!(bad.contains(&from), "{} has no {from:?}", file.display());
        bad = bad.replacen(&from, to, 1);
    }
    fs::write(&file, bad)?;
    let output = signalbox.output(folder, &["plugin", "build"], &[])?;
    fs::write(&file, good)?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let status = output.status;
    ensure!(
        status.code() == Some(mistake.exit_code),
        "`plugin build` ended with {status}: {said}"
    );
    for part in &mistake.errors {
        ensure!(
            said.contains(part),
            "`plugin build` says nothing of {part:?}: {said}"
        );
    }
    ensure!(
        !mistake.endless || ENDLESS.iter().any(|limit| said.contains(limit)),
        "`plugin build` says nothing of a call that never ends: {said}"
    );
    Ok(())
}

/// Pushes the last build, whose validator throws, and looks for the exception in the log and in the admin API.
fn fail_live(
    signalbox: &Signalbox,
    folder: &Path,
    name: &str,
    parts: &[&str],
) -> anyhow::Result<()> {
    let served = Served {
        plugins: &[name.to_owned()],
        event_type: "note",
        on_failure: "reject",
        single: false,
    };
    let node = Node::start(signalbox, &format!("{name}-mistaken"), &served)?;
    let file = folder.join("dist").join(format!("{name}.wasm"));
    signalbox.push(name, &file, &node.access())?;
    let mut client = Client::connect(node.address)?;
    let note = json!({"type": "note", "payload": "x", "receiverId": "ann"});
    let refused = client.ask(&note, "error")?;
    ensure!(
        refused["code"] == "plugin_failed",
        "the sender is told {refused}"
    );
    let answer = signalbox.ask(&["plugin", "list", "--json"], &node.access())?;
    let error = answer["plugins"][0]["versions"][0]["last_error"].to_string();
    ensure!(
        parts.iter().all(|part| error.contains(part)),
        "the admin API says {error}"
    );
    node.wait_for_line(&[&["a call of the plugin failed"], parts].concat())
}
