//! The programs that the other servers need, and how the servers are installed below the folder that cargo builds into.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::programs::{NODE, NPM, Program};
use crate::requirements::{install_packages, may_install};
use crate::steps::run_program;
use crate::workspace::Workspace;

/// The folders of the servers' sources, relative to the repository.
pub(super) const SOCKET_IO: &str = "bench/peers/socketio";
pub(super) const CENTRIFUGE: &str = "bench/peers/centrifuge";

/// The programs for the Socket.IO server.
pub(super) const FOR_SOCKET_IO: &[Program] = &[NODE, NPM];

/// The programs for the Centrifuge server.
pub(super) const FOR_CENTRIFUGE: &[Program] = &[Program {
    name: "go",
    version: "version",
    major_min: 0,
    install: "install Go (https://go.dev/dl) in the version of bench/peers/centrifuge/go.mod or later and put go into PATH",
}];

/// Installs the Socket.IO server with the packages of its lock file, and returns its folder. Runs no scripts of packages:
/// the native add-ons come with builds for the usual systems.
pub(super) fn install_socket_io(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let source = workspace.root().join(SOCKET_IO);
    let folder = workspace.target_dir().join("peers/socketio");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    copy(&source, &folder, "server.js")?;
    let lock = source.join("package-lock.json");
    install_packages(&lock, &folder.join("installed.json"), "npm ci", || {
        copy(&source, &folder, "package.json")?;
        copy(&source, &folder, "package-lock.json")?;
        let words = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
        run_program(Command::new("npm").args(words).current_dir(&folder))
            .context("npm must reach its registry or a mirror (npm config set registry)")
    })?;
    Ok(folder)
}

fn copy(from: &Path, to: &Path, file: &str) -> anyhow::Result<()> {
    fs::copy(from.join(file), to.join(file))
        .with_context(|| format!("cannot copy {file} to {}", to.display()))?;
    Ok(())
}

/// Builds the Centrifuge server with the modules of its lock file, and returns the program.
pub(super) fn build_centrifuge(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let program = workspace.target_dir().join("peers/centrifuge");
    let mut go = Command::new("go");
    go.current_dir(workspace.root().join(CENTRIFUGE));
    go.args(["build", "-mod=readonly", "-o"])
        .arg(&program)
        .arg(".");
    if !may_install() {
        // Modules that are already there are used.
        go.env("GOPROXY", "off");
    }
    run_program(&mut go).context(
        "the Centrifuge server cannot be built; go must reach a proxy for its modules (GOPROXY)",
    )?;
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_says_how_to_install_it() {
        for program in FOR_SOCKET_IO.iter().chain(FOR_CENTRIFUGE) {
            assert!(program.install.contains("install ") && program.install.contains("https://"));
        }
    }
}
