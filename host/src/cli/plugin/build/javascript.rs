//! Turns a JavaScript bundle into a component with the engine QuickJS. Our own modules (`javascript/`) sit between the
//! server and the plugin's functions: they fail a call whose result would come later, because nothing would wait for
//! it, they log why a call fails, and they give the engine the globals that it lacks.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;

use super::{
    exports::{self, Interface},
    stage::{self, STAGE, WORLD},
    tools::{output, run},
};

/// The output of the project's own build: the plugin in one file.
const BUNDLE: &str = "build/plugin.js";

/// The program that puts a script into the engine, relative to the folders in which npm installs packages: the
/// project's folder, or one above it.
const COMPONENTIZE: &str = "node_modules/.bin/componentize-qjs";

/// The component that the build leaves behind.
const COMPONENT: &str = "build/plugin.wasm";

const GLOBALS: &str = include_str!("javascript/globals.js");
const CALLS: &str = include_str!("javascript/calls.js");

/// Makes the component from the bundle that the project's build has left in `folder`. A project without the engine
/// makes its component itself, and that one is used unchanged.
///
/// # Errors
/// Returns an error if there is no bundle, if an interface is not exported, or if one of its functions cannot answer
/// when it is called.
pub(super) fn component(folder: &Path) -> anyhow::Result<Vec<u8>> {
    exports::ensure(folder)?;
    let Some(componentize) = installed(folder) else {
        return output(folder, COMPONENT).context(
            "componentize-qjs is not installed: `signalbox plugin new` pins it in package.json",
        );
    };
    let bundle = output(folder, BUNDLE)?;
    let interfaces = exports::listed(&folder.join("wit"))?;
    let entry = entry(&interfaces);
    let files = [
        ("globals.js", GLOBALS),
        ("calls.js", CALLS),
        ("entry.js", &entry),
    ];
    stage::begin(folder, &files)?;
    fs::write(folder.join(STAGE).join("plugin.js"), bundle).context(STAGE)?;
    let mut componentize = Command::new(componentize);
    componentize.args(["--wit", &format!("{STAGE}/wit"), "--world", WORLD]);
    componentize.args(["--js", &format!("{STAGE}/entry.js"), "--module-root", STAGE]);
    componentize.args(["--sync", "--stub-wasi", "--output", COMPONENT]);
    run(folder, &mut componentize)?;
    output(folder, COMPONENT)
}

/// Returns the path of the engine of the project in `folder`, if it is installed.
fn installed(folder: &Path) -> Option<PathBuf> {
    let folder = folder.canonicalize().ok()?;
    let mut places = folder.ancestors().map(|above| above.join(COMPONENTIZE));
    places.find(|place| place.exists())
}

/// Returns the engine's entry module. Modules are loaded in the order of their imports.
fn entry(interfaces: &[Interface]) -> String {
    let mut entry = String::from(
        "import { loaded } from \"./globals.js\";\nimport * as plugin from \"./plugin.js\";\nimport { wrapped } from \"./calls.js\";\n",
    );
    for Interface { name, export, .. } in interfaces {
        // Writing to a String cannot fail.
        let _ = writeln!(
            entry,
            "export const {export} = wrapped(plugin, \"{export}\", \"{name}\");"
        );
    }
    entry + "loaded();\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_loads_the_globals_first_and_wraps_every_interface() {
        let interface = |name: &str, export: &str| Interface {
            name: name.to_owned(),
            export: export.to_owned(),
            functions: Vec::new(),
        };
        let entry = entry(&[
            interface("events", "events"),
            interface("big-rooms", "bigRooms"),
        ]);
        let position = |part: &str| {
            entry
                .find(part)
                .unwrap_or_else(|| panic!("{part}: {entry}"))
        };
        assert!(position("./globals.js") < position("./plugin.js"));
        position("export const events = wrapped(plugin, \"events\", \"events\");");
        position("export const bigRooms = wrapped(plugin, \"bigRooms\", \"big-rooms\");");
        assert!(entry.ends_with("loaded();\n"));
    }

    #[test]
    fn every_interface_of_the_package_has_rules_for_its_functions() {
        for (interface, functions) in [
            ("validation", ["validate"].as_slice()),
            ("transformation", &["transform"]),
            ("screening", &["screen"]),
            ("events", &["eventTypes", "handle"]),
            ("requests", &["requestTypes", "respond"]),
            ("connections", &["connected", "disconnected"]),
            ("rooms", &["authorizeJoin"]),
            ("membership", &["joined", "left"]),
            ("lifecycle", &["init", "selfTest"]),
            ("handover", &["save", "restore"]),
        ] {
            let rules = CALLS
                .lines()
                .find(|line| line.starts_with(&format!("  {interface}: {{ ")))
                .unwrap_or_else(|| panic!("{interface} has no rules"));
            for function in functions {
                assert!(rules.contains(&format!("{function}: [")), "{function}");
            }
        }
    }

    #[test]
    fn a_project_without_the_engine_makes_its_component_itself() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = format!(
            "{:#}",
            component(folder.path()).expect_err("there is nothing")
        );
        assert!(
            error.contains("componentize-qjs is not installed"),
            "{error}"
        );
        let write = |name: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, name).expect("a file");
        };
        write(COMPONENT);
        let made = component(folder.path()).expect("it is there");
        assert_eq!(made, COMPONENT.as_bytes());
        // With the engine, an existing component is not used.
        write(COMPONENTIZE);
        let error = format!(
            "{:#}",
            component(folder.path()).expect_err("there is no bundle")
        );
        assert!(error.contains(BUNDLE), "{error}");
    }
}
