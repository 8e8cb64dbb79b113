//! Rules for the crates of the host: forbidden dependencies, and the names of types.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Crates without side effects, with the crates that they must not depend on.
const PURE: &[(&str, &[&str])] = &[
    ("protocol", &["tokio"]),
    ("websocket", &["tokio"]),
    (
        "pipeline",
        &["tokio", "signalbox-router", "signalbox-broker"],
    ),
];

#[test]
fn the_protocol_and_the_pipeline_have_no_side_effects() {
    for (name, forbidden) in PURE {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(name)
            .join("Cargo.toml");
        let manifest = fs::read_to_string(&manifest).expect("a crate's manifest");
        let manifest: toml::Table = manifest.parse().expect("TOML");
        let dependencies = manifest["dependencies"].as_table().expect("dependencies");
        assert!(!dependencies.is_empty(), "{name}");
        for other in *forbidden {
            assert!(
                !dependencies.contains_key(*other),
                "{name} depends on {other}"
            );
        }
    }
}

#[test]
fn every_file_that_the_architecture_names_exists() {
    let host = Path::new(env!("CARGO_MANIFEST_DIR"));
    let top = host.join("..");
    for page in ["ARCHITECTURE.md", "CONTRIBUTING.md"] {
        let text = fs::read_to_string(top.join(page)).expect("the page");
        let files = text.split('`').skip(1).step_by(2).filter(|code| {
            let is_path = |c: char| c.is_ascii_alphanumeric() || "/_-.".contains(c);
            code.ends_with(".rs") && code.chars().all(is_path)
        });
        let missing: Vec<_> = files
            .filter(|file| !host.join(file).exists() && !top.join(file).exists())
            .collect();
        assert!(missing.is_empty(), "{page} names {missing:?}");
    }
}

#[test]
fn no_two_public_types_have_the_same_name() {
    let mut text = String::new();
    for folder in sources() {
        read(&folder, &mut text);
    }
    let mut counts = BTreeMap::<&str, usize>::new();
    for name in text.lines().filter_map(public_type) {
        *counts.entry(name).or_default() += 1;
    }
    assert!(counts.len() > 300, "{counts:?}");
    counts.retain(|_, count| *count > 1);
    assert!(counts.is_empty(), "{counts:?}");
}

/// The name of the type that a line defines, if other modules can see it.
fn public_type(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("pub")?;
    let rest = match rest.strip_prefix('(') {
        Some(scope) => scope.split_once(')')?.1,
        None => rest,
    };
    let (keyword, rest) = rest.trim_start().split_once(' ')?;
    if !matches!(keyword, "struct" | "enum" | "trait" | "type" | "union") {
        return None;
    }
    rest.split(|c: char| !c.is_alphanumeric()).next()
}

#[test]
fn public_types_of_any_visibility_are_found() {
    for line in [
        "pub struct Frame(Bytes);",
        "pub(super) enum Frame {",
        "    pub(in crate::plugin) type Frame<T> = Vec<T>;",
    ] {
        assert_eq!(public_type(line), Some("Frame"), "{line}");
    }
    for line in [
        "struct Frame;",
        "pub fn frame() {",
        "    type Output = ();",
        "pub mod frame;",
    ] {
        assert_eq!(public_type(line), None, "{line}");
    }
}

/// The folders with the source of each crate of the host.
fn sources() -> Vec<PathBuf> {
    let host = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = fs::read_dir(host).expect("the host's folder");
    let mut sources: Vec<_> = folders
        .map(|entry| entry.expect("a crate's folder").path().join("src"))
        .filter(|source| source.is_dir())
        .collect();
    sources.push(host.join("src"));
    sources
}

fn read(path: &Path, text: &mut String) {
    for entry in fs::read_dir(path).expect("a module's folder") {
        let path = entry.expect("a module's file").path();
        if path.is_dir() {
            read(&path, text);
        } else if path.ends_with("telemetry/src/no_trace.rs") {
            // Takes the place of `trace` in builds without `otlp`.
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(path).expect("a module's source"));
        }
    }
}
