//! The versions of the servers that are compared, from the files that pin them.

use std::fs;

use anyhow::Context as _;
use serde_json::Value;

use super::programs::{CENTRIFUGE, SOCKET_IO};
use crate::programs::said_version;
use crate::workspace::Workspace;

/// The version of a package in `Cargo.lock`.
pub(super) fn cargo(workspace: &Workspace, package: &str) -> anyhow::Result<String> {
    read(workspace, "Cargo.lock", |lock| in_cargo_lock(lock, package))
}

/// The version of Socket.IO, and of Node.
pub(super) fn socket_io(workspace: &Workspace) -> anyhow::Result<String> {
    let file = format!("{SOCKET_IO}/package-lock.json");
    let version = read(workspace, &file, |lock| in_package_lock(lock, "socket.io"))?;
    let node = said_version("node", "--version").unwrap_or_default();
    Ok(format!("{version}, Node {}", node.trim_start_matches('v')))
}

/// The version of centrifuge, and of Go.
pub(super) fn centrifuge(workspace: &Workspace) -> anyhow::Result<String> {
    let file = format!("{CENTRIFUGE}/go.mod");
    let module = "github.com/centrifugal/centrifuge";
    let version = read(workspace, &file, |go_mod| in_go_mod(go_mod, module))?;
    // `go version go1.26.8 linux/amd64`
    let output = said_version("go", "version").unwrap_or_default();
    let go = output.split(' ').nth(2).unwrap_or_default();
    Ok(format!("{version}, Go {}", go.trim_start_matches("go")))
}

fn read(
    workspace: &Workspace,
    file: &str,
    parse: impl Fn(&str) -> Option<String>,
) -> anyhow::Result<String> {
    let text = fs::read_to_string(workspace.root().join(file));
    let text = text.with_context(|| format!("cannot read {file}"))?;
    parse(&text).with_context(|| format!("{file} does not name the version"))
}

fn in_package_lock(lock: &str, package: &str) -> Option<String> {
    let lock: Value = serde_json::from_str(lock).ok()?;
    let version = &lock["packages"][format!("node_modules/{package}")]["version"];
    version.as_str().map(str::to_owned)
}

/// The version without its `v`.
fn in_go_mod(go_mod: &str, module: &str) -> Option<String> {
    let mut words = go_mod.split_whitespace();
    words.find(|word| *word == module)?;
    Some(words.next()?.trim_start_matches('v').to_owned())
}

fn in_cargo_lock(lock: &str, package: &str) -> Option<String> {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name);
    let version = lines.nth(1)?.strip_prefix("version = ")?;
    Some(version.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::peers::SERVERS;

    #[test]
    fn versions_are_read_from_lock_files() {
        let lock =
            r#"{"packages":{"":{"version":"0.0.1"},"node_modules/socket.io":{"version":"4.8.1"}}}"#;
        assert_eq!(in_package_lock(lock, "socket.io").as_deref(), Some("4.8.1"));
        assert_eq!(in_package_lock(lock, "ws"), None);
        let go_mod = "module a\n\ngo 1.26.0\n\nrequire (\n\texample.com/b v1.2.3\n\texample.com/bc v2.0.0 // indirect\n)\n";
        assert_eq!(
            in_go_mod(go_mod, "example.com/bc").as_deref(),
            Some("2.0.0")
        );
        assert_eq!(in_go_mod(go_mod, "example.com/d"), None);
        let lock = "[[package]]\nname = \"axum-core\"\nversion = \"0.5.1\"\n\n[[package]]\nname = \"axum\"\nversion = \"0.8.2\"\n";
        assert_eq!(in_cargo_lock(lock, "axum").as_deref(), Some("0.8.2"));
        assert_eq!(in_cargo_lock(lock, "tokio"), None);
    }

    #[test]
    fn the_pinned_versions_of_this_repository_are_found() {
        let workspace = Workspace::find().expect("this workspace");
        for server in &SERVERS {
            let version = (server.version)(&workspace).expect("it is pinned");
            assert!(version.contains('.'), "{version}");
        }
        let version = socket_io(&workspace).expect("it is pinned");
        assert!(version.starts_with("4.8."), "{version}");
    }

    #[test]
    fn every_package_of_the_servers_is_pinned_exactly() {
        let workspace = Workspace::find().expect("this workspace");
        let file = workspace.root().join(SOCKET_IO).join("package.json");
        let text = fs::read_to_string(file).expect("it is there");
        let package: Value = serde_json::from_str(&text).expect("it is JSON");
        for (name, version) in package["dependencies"].as_object().expect("there are some") {
            let version = version.as_str().expect("a version");
            let is_exact = version.chars().all(|c| c.is_ascii_digit() || c == '.');
            assert!(is_exact, "{name} {version}");
        }
    }
}
