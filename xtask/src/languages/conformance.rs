//! Runs the same cases against a plugin in each language, to find what a language cannot do.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::client::Client;
use super::node::{Node, Served};
use super::signalbox::Signalbox;
use super::{Steps, guide, journey};
use crate::builds;
use crate::workspace::Workspace;

/// The folder of the cases and the plugins, relative to the repository.
const FOLDER: &str = "sdk/conformance";

/// The event type that the plugins count in their memory.
const COUNTED: &str = "c.hits";

/// The first step that is no longer part of the way to a live plugin.
pub(super) const BUILD: &str = "conformance build";

fn name(language: &str) -> String {
    format!("conformance-{language}")
}

/// Creates the project of the conformance plugin of `language`. It gets the packages of the project that the journey has left.
pub(super) fn create(
    signalbox: &Signalbox,
    workspace: &Workspace,
    language: &str,
) -> anyhow::Result<()> {
    let name = name(language);
    let folder = signalbox.folder(&name);
    let sources = workspace.root().join(FOLDER);
    signalbox.new_project(&name, language)?;
    copy(&sources.join(language), &folder)?;
    share(&signalbox.folder(&journey::name(language)), &folder)?;
    fs::write(
        folder.join("cases.json"),
        written_out(cases(&sources, language)?)?,
    )
    .context("the cases")?;
    guide::add_modules(workspace, language, &folder)
}

/// Builds the plugin, and runs the cases through it.
pub(super) fn run(signalbox: &Signalbox, language: &str, steps: &mut Steps) -> anyhow::Result<()> {
    let name = name(language);
    let folder = signalbox.folder(&name);
    steps.step(BUILD, || signalbox.run(&folder, &["plugin", "build"]))?;
    steps.step("conformance", || {
        signalbox.run(&folder, &["plugin", "test"])
    })?;
    let component = folder.join("dist").join(format!("{name}.wasm"));
    steps.step("handover", || keeps_memory(signalbox, &name, &component))
}

/// Replaces the plugin while it has a single instance, which counts messages in its memory, and checks that the count
/// is kept.
fn keeps_memory(signalbox: &Signalbox, name: &str, component: &Path) -> anyhow::Result<()> {
    let served = Served {
        plugins: &[name.to_owned()],
        event_type: COUNTED,
        on_failure: "reject",
        single: true,
    };
    let node = Node::start(signalbox, name, &served)?;
    let bytes = fs::read(component).with_context(|| component.display().to_string())?;
    let second = component.with_file_name("second.wasm");
    fs::write(&second, builds::numbered(&bytes, 2))?;
    let mut client = None;
    for (number, build) in [(1, component), (2, &second)] {
        signalbox.push(name, build, &node.access())?;
        let client = match &mut client {
            Some(client) => client,
            // No client may connect before a plugin that decides about connections is there.
            none => none.insert(Client::connect(node.address)?),
        };
        let counted = client.ask(&json!({"type": COUNTED}), COUNTED)?;
        ensure!(
            counted == number,
            "version {number} counts {counted} instead of {number}: it did not get the memory of the one before"
        );
    }
    Ok(())
}

/// Returns the cases for `language`. Some things are written differently in the file: `{"$repeat":["ab",3]}` stands for
/// `"ababab"`, and a case with `"except":{"c":"why"}` is left out for C.
fn cases(folder: &Path, language: &str) -> anyhow::Result<Value> {
    let file = folder.join("cases.json");
    let named = || file.display().to_string();
    let text = fs::read_to_string(&file).with_context(named)?;
    let mut recording: Value = serde_json::from_str(&text).with_context(named)?;
    let cases = recording["cases"].as_array_mut().with_context(named)?;
    cases.retain(|case| case["except"].get(language).is_none());
    for case in cases {
        if let Some(case) = case.as_object_mut() {
            case.remove("except");
        }
        expand(case);
    }
    Ok(recording)
}

fn expand(value: &mut Value) {
    replace_all(value, &mut |value| {
        let [text, times] = value.get("$repeat")?.as_array()?.as_slice() else {
            return None;
        };
        let times = usize::try_from(times.as_u64()?).ok()?;
        Some(text.as_str()?.repeat(times).into())
    });
}

/// Replaces each value in `value` for which `new` returns another one.
fn replace_all(value: &mut Value, new: &mut impl FnMut(&Value) -> Option<Value>) {
    if let Some(new) = new(value) {
        *value = new;
        return;
    }
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| replace_all(item, new)),
        Value::Object(fields) => fields
            .values_mut()
            .for_each(|field| replace_all(field, new)),
        _ => {}
    }
}

/// Returns the text of a file of cases. JSON that no library would write is given as `{"$raw":"…"}`, or as a list of
/// parts, some of which may repeat.
fn written_out(mut cases: Value) -> anyhow::Result<String> {
    let mut raw: Vec<String> = Vec::new();
    replace_all(&mut cases, &mut |value| {
        raw.push(match value.get("$raw")? {
            Value::Array(parts) => parts.iter().filter_map(Value::as_str).collect(),
            whole => whole.as_str().unwrap_or_default().to_owned(),
        });
        Some(raw_marker(raw.len() - 1).into())
    });
    let mut text = cases.to_string();
    for (number, json) in raw.iter().enumerate() {
        let place = format!("\"{}\"", raw_marker(number));
        ensure!(text.contains(&place), "the case with {json:.40} is gone");
        text = text.replacen(&place, json, 1);
    }
    Ok(text)
}

fn raw_marker(number: usize) -> String {
    format!("$raw {number}$")
}

/// Gives a project the packages that package managers have installed in another one: they are the same, and installing
/// them takes most of the time. Both projects can be built at the same time: cargo locks its folder, and package managers replace
/// files instead of changing them.
fn share(of: &Path, project: &Path) -> anyhow::Result<()> {
    let target = of.join("target");
    if target.exists() {
        symlink(&target, project.join("target")).with_context(|| target.display().to_string())?;
    }
    for packages in [".venv", "node_modules"] {
        let there = of.join(packages);
        if there.exists() {
            link(&there, &project.join(packages))?;
        }
    }
    Ok(())
}

/// Creates hard links to the files in and below `from`.
fn link(from: &Path, to: &Path) -> anyhow::Result<()> {
    for_each_file(from, to, |source, target| fs::hard_link(source, target))
}

/// Copies the files in and below `from` over those in `to`.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    for_each_file(from, to, |source, target| {
        fs::copy(source, target).map(drop)
    })
}

/// Calls `place` with each file in and below `from` and its path in `to`, and creates the folders.
fn for_each_file(
    from: &Path,
    to: &Path,
    place: fn(&Path, &Path) -> io::Result<()>,
) -> anyhow::Result<()> {
    let named = || from.display().to_string();
    fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    for entry in fs::read_dir(from).with_context(named)? {
        let entry = entry.with_context(named)?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().with_context(named)?.is_dir() {
            for_each_file(&source, &target, place)?;
        } else {
            place(&source, &target).with_context(|| source.display().to_string())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::LANGUAGES;
    use super::*;

    #[test]
    fn every_language_has_a_plugin_and_most_of_the_cases() {
        let workspace = Workspace::find().expect("this workspace");
        let folder = workspace.root().join(FOLDER);
        let all = cases(&folder, "none").expect("the cases");
        let all = all["cases"].as_array().expect("a list").len();
        for language in LANGUAGES {
            assert!(folder.join(language).is_dir(), "{language}");
            let some = cases(&folder, language).expect("the cases");
            let some = some["cases"].as_array().expect("a list").len();
            assert!(some * 10 >= all * 8, "{language} has {some} of {all} cases");
        }
    }

    #[test]
    fn raw_json_is_written_unchanged() {
        let mut value = serde_json::json!({"a": {"$raw": "1e400"}, "b": [{"$raw": ["[", {"$repeat": ["9", 3]}, "]"]}]});
        expand(&mut value);
        let text = written_out(value).expect("all is there");
        assert_eq!(text, r#"{"a":1e400,"b":[[999]]}"#);
    }

    #[test]
    fn repetitions_are_expanded() {
        let mut value = serde_json::json!({"a": [{"$repeat": ["ab", 3]}], "b": 1});
        expand(&mut value);
        assert_eq!(value, serde_json::json!({"a": ["ababab"], "b": 1}));
    }
}
