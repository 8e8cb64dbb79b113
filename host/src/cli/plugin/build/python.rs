//! A component of a plugin in Python, by componentize-py. Between the server and the plugin's methods stands a module of ours
//! (`python/`): it fails a call whose answer nobody would wait for, and says in the log why a call fails.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;

use super::{
    exports::{self, Interface},
    stage::{self, STAGE, WORLD},
    tools::{output, run, virtual_environment},
};

const CALLS: &str = include_str!("python/signalbox_calls.py");

/// The module that the component begins with.
const ENTRY: &str = "signalbox_entry";

/// Builds the component of the project in `folder`.
///
/// # Errors
/// Where a tool is missing, an interface is not implemented, or a method of one cannot answer when it is called.
pub(super) fn component(folder: &Path) -> anyhow::Result<Vec<u8>> {
    virtual_environment(folder)?;
    let interfaces = exports::listed(&folder.join("wit"))?;
    let entry = entry(&interfaces);
    let files = [
        ("signalbox_calls.py", CALLS),
        (&format!("{ENTRY}.py"), &entry),
    ];
    stage::begin(folder, &files)?;
    let mut componentize = Command::new(".venv/bin/componentize-py");
    // Without the variable the packages of the whole machine would come along.
    componentize.env("VIRTUAL_ENV", ".venv");
    // What the plugin's modules raise is shown without the stack of the compiler.
    componentize.env("RUST_BACKTRACE", "0");
    componentize.args(["--quiet", "--wit-path", &format!("{STAGE}/wit")]);
    componentize.args(["--world", WORLD, "componentize", ENTRY]);
    componentize.args(["--output", "build/plugin.wasm"]);
    componentize.args(["--python-path", ".", "--python-path", STAGE]);
    for shared in linked_from(folder)? {
        componentize.arg("--python-path").arg(shared);
    }
    run(folder, &mut componentize)?;
    output(folder, "build/plugin.wasm")
}

fn entry(interfaces: &[Interface]) -> String {
    let mut entry = String::from("import app\nfrom signalbox_calls import wrapped\n\n");
    for Interface {
        name, functions, ..
    } in interfaces
    {
        let class = class(name);
        let methods: String = functions
            .iter()
            .map(|function| format!("\"{}\", ", function.replace('-', "_")))
            .collect();
        // Writing to a String cannot fail.
        let _ = writeln!(
            entry,
            "{class} = wrapped(app, \"{class}\", ({methods}), \"{name}\")"
        );
    }
    entry
}

/// `big-rooms` as the name of a class, `BigRooms`.
fn class(interface: &str) -> String {
    let capital = |word: &str| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_ascii_uppercase() + rest
    };
    interface.split('-').map(capital).collect()
}

/// The folders of modules that a project has as symbolic links: the compiler reads sources in a sandbox, which follows no
/// link out of the folders that it is given.
fn linked_from(folder: &Path) -> anyhow::Result<BTreeSet<PathBuf>> {
    let mut folders = BTreeSet::new();
    for entry in folder
        .read_dir()
        .with_context(|| folder.display().to_string())?
    {
        let path = entry?.path();
        let module = path.extension().is_some_and(|extension| extension == "py");
        if !module || !path.is_symlink() {
            continue;
        }
        let target = path
            .canonicalize()
            .with_context(|| format!("{} is a link that leads nowhere", path.display()))?;
        folders.extend(target.parent().map(Path::to_owned));
    }
    Ok(folders)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_wraps_every_class_with_its_methods() {
        let entry = entry(&[Interface {
            name: "big-rooms".to_owned(),
            export: "bigRooms".to_owned(),
            functions: vec!["authorize-join".to_owned(), "f".to_owned()],
        }]);
        let line =
            "BigRooms = wrapped(app, \"BigRooms\", (\"authorize_join\", \"f\", ), \"big-rooms\")";
        assert!(
            entry.starts_with("import app\n") && entry.contains(line),
            "{entry}"
        );
    }
}
