//! Which module of the host may use which.

use std::{fs, path::Path};

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
        "fleet",
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
            "fleet",
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
            let used = text.contains(&format!("crate::{other}::"))
                || text.contains(&format!("    {other}::{{"));
            assert!(!(forbidden && used), "{module} uses {other}");
        }
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
