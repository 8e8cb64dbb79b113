//! The versions of the servers that are compared, from the files that pin them.

use std::fs;

use anyhow::Context as _;
use serde_json::Value;

use super::Server;
use super::programs::{CENTRIFUGE, SOCKET_IO};
use crate::programs::said_version;
use crate::workspace::Workspace;

/// The version of a server, and of the program that runs it.
pub(super) fn of(server: Server, workspace: &Workspace) -> anyhow::Result<String> {
    let read = |file: &str| {
        let path = workspace.root().join(file);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let (file, version) = match server {
        Server::Signalbox => ("Cargo.lock", cargo(&read("Cargo.lock")?, "signalbox")),
        Server::Relay => {
            let axum = cargo(&read("Cargo.lock")?, "axum");
            ("Cargo.lock", axum.map(|axum| format!("axum {axum}")))
        }
        Server::SocketIo => {
            let file = format!("{SOCKET_IO}/package-lock.json");
            let version = npm(&read(&file)?, "socket.io");
            let node = said_version("node", "--version").unwrap_or_default();
            (
                "package-lock.json",
                version.map(|version| format!("{version}, Node {}", node.trim_start_matches('v'))),
            )
        }
        Server::Centrifuge => {
            let file = format!("{CENTRIFUGE}/go.mod");
            let version = go(&read(&file)?, "github.com/centrifugal/centrifuge");
            let said = said_version("go", "version").unwrap_or_default();
            // `go version go1.26.8 linux/amd64`
            let toolchain = said.split(' ').nth(2).unwrap_or_default().to_owned();
            (
                "go.mod",
                version
                    .map(|version| format!("{version}, Go {}", toolchain.trim_start_matches("go"))),
            )
        }
    };
    version.with_context(|| format!("{file} does not name the version of {}", server.name()))
}

/// The version of a package in a `package-lock.json`.
fn npm(lock: &str, package: &str) -> Option<String> {
    let lock: Value = serde_json::from_str(lock).ok()?;
    let version = &lock["packages"][format!("node_modules/{package}")]["version"];
    version.as_str().map(str::to_owned)
}

/// The version of a module in a `go.mod`, without its `v`.
fn go(go_mod: &str, module: &str) -> Option<String> {
    let mut words = go_mod.split_whitespace();
    words.find(|word| *word == module)?;
    words
        .next()
        .map(|version| version.trim_start_matches('v').to_owned())
}

/// The version of a package in a `Cargo.lock`.
fn cargo(lock: &str, package: &str) -> Option<String> {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name);
    let version = lines.nth(1)?.strip_prefix("version = ")?;
    Some(version.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_lock_files() {
        let lock =
            r#"{"packages":{"":{"version":"0.0.1"},"node_modules/socket.io":{"version":"4.8.1"}}}"#;
        assert_eq!(npm(lock, "socket.io").as_deref(), Some("4.8.1"));
        assert_eq!(npm(lock, "ws"), None);
        let go_mod = "module a\n\ngo 1.26.0\n\nrequire (\n\texample.com/b v1.2.3\n\texample.com/bc v2.0.0 // indirect\n)\n";
        assert_eq!(go(go_mod, "example.com/bc").as_deref(), Some("2.0.0"));
        assert_eq!(go(go_mod, "example.com/d"), None);
        let lock = "[[package]]\nname = \"axum-core\"\nversion = \"0.5.1\"\n\n[[package]]\nname = \"axum\"\nversion = \"0.8.2\"\n";
        assert_eq!(cargo(lock, "axum").as_deref(), Some("0.8.2"));
        assert_eq!(cargo(lock, "tokio"), None);
    }

    #[test]
    fn the_pinned_versions_of_this_repository_are_found() {
        let workspace = Workspace::find().expect("this workspace");
        for server in Server::ALL {
            let version = of(server, &workspace).expect("it is pinned");
            assert!(version.contains('.'), "{version}");
        }
        let version = of(Server::SocketIo, &workspace).expect("it is pinned");
        assert!(version.starts_with("4.8."), "{version}");
    }

    #[test]
    fn every_package_of_the_servers_is_pinned_exactly() {
        let workspace = Workspace::find().expect("this workspace");
        let file = workspace.root().join(SOCKET_IO).join("package.json");
        let text = fs::read_to_string(file).expect("it is there");
        let package: Value = serde_json::from_str(&text).expect("it is JSON");
        let dependencies = package["dependencies"].as_object().expect("there are some");
        for (name, version) in dependencies {
            let exact = version
                .as_str()
                .is_some_and(|version| version.chars().all(|c| c.is_ascii_digit() || c == '.'));
            assert!(exact, "{name} {version}");
        }
    }
}
