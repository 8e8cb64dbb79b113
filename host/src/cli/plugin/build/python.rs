//! Builds the component of a Python plugin with componentize-py. Our own module (`python/`) sits between the server and
//! the plugin's methods: it fails a call whose result would come later, because nothing would wait for it, and logs why
//! a call fails.

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

/// The component's entry module.
const ENTRY: &str = "signalbox_entry";

/// Builds the component of the project in `folder`.
///
/// # Errors
/// Returns an error if a tool is missing, if an interface is not implemented, or if one of its methods cannot answer
/// when it is called.
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
    // Without this variable, the packages of the whole machine would be included.
    componentize.env("VIRTUAL_ENV", ".venv");
    // Errors raised by the plugin's modules are shown without the compiler's stack.
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

/// Converts a name such as `big-rooms` to the name of a class, `BigRooms`.
fn class(interface: &str) -> String {
    let capital = |word: &str| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_ascii_uppercase() + rest
    };
    interface.split('-').map(capital).collect()
}

/// Returns the folders of the modules that a project includes as symbolic links. The compiler reads sources in a
/// sandbox that follows no link out of the folders it is given.
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
