//! The layers of the host, and the names of its types.

use std::{collections::BTreeMap, fs, path::Path};

/// A module, and the ones that it may use.
const MAY_USE: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("websocket", &[]),
    ("config", &["protocol"]),
    ("logging", &[]),
    ("metrics", &["protocol"]),
    ("supervise", &["metrics"]),
    ("files", &[]),
    ("error_chain", &[]),
    ("token_bucket", &[]),
    (
        "auth",
        &["config", "error_chain", "metrics", "protocol", "supervise"],
    ),
    (
        "cloudwatch",
        &["config", "error_chain", "metrics", "supervise"],
    ),
    ("trace", &["config", "error_chain", "metrics", "supervise"]),
    ("redis_client", &["config", "metrics", "supervise"]),
    (
        "broker",
        &[
            "config",
            "metrics",
            "protocol",
            "redis_client",
            "supervise",
            "trace",
        ],
    ),
    (
        "router",
        &["broker", "metrics", "protocol", "trace", "websocket"],
    ),
    (
        "plugin",
        &["config", "metrics", "protocol", "redis_client", "supervise"],
    ),
    (
        "cluster_rollout",
        &["broker", "metrics", "plugin", "redis_client", "supervise"],
    ),
    ("pipeline", &["config", "plugin", "protocol", "trace"]),
    (
        "session",
        &[
            "broker",
            "config",
            "metrics",
            "pipeline",
            "plugin",
            "protocol",
            "router",
            "token_bucket",
            "trace",
            "websocket",
        ],
    ),
    (
        "server",
        &[
            "auth",
            "config",
            "cluster_rollout",
            "metrics",
            "plugin",
            "protocol",
            "router",
            "session",
            "token_bucket",
            "trace",
        ],
    ),
];

#[test]
fn dependencies_point_one_way() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (module, allowed) in MAY_USE {
        let mut text = String::new();
        read_module(&source.join(module), &mut text);
        assert!(!text.is_empty(), "there is no module {module}");
        for (other, _) in MAY_USE.iter().chain(&[("app", &[][..])]) {
            let forbidden = other != module && !allowed.contains(other);
            assert!(!(forbidden && uses(&text, other)), "{module} uses {other}");
        }
    }
}

/// Whether it names the module `other` of the crate: by its path, or in a group of imports from the crate.
fn uses(text: &str, other: &str) -> bool {
    let path = format!("{other}::");
    if text.contains(&format!("crate::{path}")) {
        return true;
    }
    let groups = text.split("use crate::{").skip(1);
    groups
        .filter_map(|rest| rest.split_once("};"))
        .any(|(group, _)| imports(group).any(|import| import.starts_with(&path)))
}

/// The members of a group of imports, without those of the groups in it.
fn imports(group: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    let members = group.split(move |c: char| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    members.map(str::trim)
}

#[test]
fn imports_from_the_crate_are_uses_and_those_from_the_own_module_are_not() {
    let text = "use crate::{\n    config::{errors::Error, Limits},\n    trace::Span,\n};\n\
                use super::{\n    metrics::{Counter, Gauge},\n};\nuse crate::{auth::Claims, files::Stamp};\n";
    for other in ["config", "trace", "auth", "files"] {
        assert!(uses(text, other), "{other}");
    }
    for other in ["errors", "metrics"] {
        assert!(!uses(text, other), "{other}");
    }
}

#[test]
fn no_two_public_types_have_the_same_name() {
    let mut text = String::new();
    read(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut text,
    );
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
fn public_types_are_found_whatever_their_visibility() {
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

/// A module is a folder, or one file.
fn read_module(path: &Path, text: &mut String) {
    if path.is_dir() {
        return read(path, text);
    }
    text.push_str(&fs::read_to_string(path.with_extension("rs")).expect("a module's source"));
}

fn read(path: &Path, text: &mut String) {
    for entry in fs::read_dir(path).expect("a module's folder") {
        let path = entry.expect("a module's file").path();
        if path.is_dir() {
            read(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(path).expect("a module's source"));
        }
    }
}
