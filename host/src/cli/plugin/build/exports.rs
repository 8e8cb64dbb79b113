//! Reads the interfaces that the world of a project lists, and checks that a JavaScript bundle exports them. The engine
//! would notice a missing one only at the first call, and could then only report that the call failed.

use std::{fs, path::Path};

use anyhow::{Context, bail};
use serde_json::Value;
use wit_parser::{Resolve, WorldItem};

/// The file in which esbuild describes the bundle (`--metafile`).
const METAFILE: &str = "build/meta.json";

/// The name of a project's world.
const WORLD: &str = "plugin";

/// # Errors
/// Returns an error with advice if an interface of the world is not exported. A project whose build leaves no metafile
/// is not checked.
pub(super) fn ensure(folder: &Path) -> anyhow::Result<()> {
    let Ok(metafile) = fs::read_to_string(folder.join(METAFILE)) else {
        return Ok(());
    };
    let metafile: Value = serde_json::from_str(&metafile).context(METAFILE)?;
    let (source, exported) =
        bundled(&metafile).with_context(|| format!("{METAFILE} lists no bundle"))?;
    for Interface { name, export, .. } in listed(&folder.join("wit"))? {
        if !exported.contains(&export.as_str()) {
            bail!(
                "{source} exports no `{export}`, and wit/plugin.wit lists `{name}`: add `export const {export} = …` with its \
                 functions, or remove the line from wit/plugin.wit"
            );
        }
    }
    Ok(())
}

/// Returns the bundle's entry point and the names that it exports.
fn bundled(metafile: &Value) -> Option<(&str, Vec<&str>)> {
    let outputs = metafile["outputs"].as_object()?;
    let bundle = outputs
        .values()
        .find(|output| output["entryPoint"].is_string())?;
    let exported = bundle["exports"].as_array()?;
    let exported = exported.iter().filter_map(Value::as_str).collect();
    Some((bundle["entryPoint"].as_str()?, exported))
}

/// An interface that a world exports.
pub(super) struct Interface {
    /// Its name in the WIT, such as `big-rooms`.
    pub(super) name: String,
    /// The name of the object that implements it, such as `bigRooms`.
    pub(super) export: String,
    /// Its functions, named as in the WIT, such as `authorize-join`.
    pub(super) functions: Vec<String>,
}

/// Returns the interfaces that the world in the folder `wit` exports.
///
/// # Errors
/// Returns an error if the folder holds no such world.
pub(super) fn listed(wit: &Path) -> anyhow::Result<Vec<Interface>> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(wit)?;
    let world = resolve.select_world(&[package], Some(WORLD))?;
    let exports = resolve.worlds[world].exports.values();
    Ok(exports
        .filter_map(|export| match export {
            WorldItem::Interface { id, .. } => Some(&resolve.interfaces[*id]),
            _ => None,
        })
        .filter_map(|interface| {
            let name = interface.name.clone()?;
            Some(Interface {
                export: camel_case(&name),
                name,
                functions: interface.functions.keys().cloned().collect(),
            })
        })
        .collect())
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('-');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let (first, rest) = word.split_at(word.len().min(1));
        camel += &first.to_ascii_uppercase();
        camel += rest;
    }
    camel
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(exports: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, text).expect("a file");
        };
        write(
            "wit/plugin.wit",
            "package local:a; interface events { f: func(); } interface big-rooms { f: func(); }
             world plugin { export events; export big-rooms; }",
        );
        write(
            METAFILE,
            &format!(
                r#"{{"outputs":{{"build/plugin.js":{{"entryPoint":"src/plugin.js","exports":[{exports}]}}}}}}"#
            ),
        );
        dir
    }

    #[test]
    fn a_missing_export_is_named_with_advice() {
        let all = project(r#""bigRooms","events","other""#);
        ensure(all.path()).expect("all are there");
        let some = project(r#""events""#);
        let error = ensure(some.path()).expect_err("one is missing").to_string();
        assert!(
            error.starts_with(
                "src/plugin.js exports no `bigRooms`, and wit/plugin.wit lists `big-rooms`"
            ),
            "{error}"
        );
    }

    #[test]
    fn a_build_without_a_metafile_is_taken_as_it_is() {
        let dir = project("");
        fs::remove_file(dir.path().join(METAFILE)).expect("it was there");
        ensure(dir.path()).expect("nothing is known of it");
    }
}
