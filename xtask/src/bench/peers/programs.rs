//! The programs that the other servers need, and how the servers are installed below the folder that cargo builds into.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::requirements::{INSTALL_VARIABLE, may_install};
use crate::steps::run_program;
use crate::workspace::Workspace;

/// The folders of the servers' sources, relative to the repository.
pub(super) const SOCKET_IO: &str = "bench/peers/socketio";
pub(super) const CENTRIFUGE: &str = "bench/peers/centrifuge";

/// The oldest Node that the Socket.IO server runs on, as its `package.json` says.
const NODE_MAJOR_MIN: u32 = 20;

/// A program that a server needs.
pub(super) struct Program {
    name: &'static str,
    /// The argument with which it prints its version.
    version: &'static str,
    /// The lowest major version; 0 for any.
    major_min: u32,
    /// Instructions for the user if it is missing.
    install: &'static str,
}

/// The programs for the Socket.IO server.
pub(super) const FOR_SOCKET_IO: &[Program] = &[
    Program {
        name: "node",
        version: "--version",
        major_min: NODE_MAJOR_MIN,
        install: "install Node.js 20 or later (https://nodejs.org) and put node into PATH",
    },
    Program {
        name: "npm",
        version: "--version",
        major_min: 0,
        install: "install npm, which comes with Node.js (https://nodejs.org), and put it into PATH",
    },
];

/// The programs for the Centrifuge server.
pub(super) const FOR_CENTRIFUGE: &[Program] = &[Program {
    name: "go",
    version: "version",
    major_min: 0,
    install: "install Go (https://go.dev/dl) in the version of bench/peers/centrifuge/go.mod or later and put go into PATH",
}];

/// Returns the line that names the first program that is missing or too old for `server`, and what to install.
pub(super) fn missing(server: &str, programs: &[Program]) -> Option<String> {
    programs.iter().find_map(|program| {
        let said = said_version(program.name, program.version);
        complaint(server, program, said.as_deref())
    })
}

/// Returns the line for a program that printed this version; `None` if it will do.
fn complaint(server: &str, program: &Program, said: Option<&str>) -> Option<String> {
    let Program { name, install, .. } = program;
    match said {
        None => Some(format!("SKIPPED {server}: {name} is missing; {install}")),
        Some(said) if major(said) < program.major_min => Some(format!(
            "SKIPPED {server}: {name} is {said}, which is too old; {install}"
        )),
        Some(_) => None,
    }
}

/// The first line that a program prints with this argument; `None` if it cannot be run.
pub(super) fn said_version(program: &str, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let line = said.lines().next().unwrap_or_default().trim();
    output.status.success().then(|| line.to_owned())
}

/// The major version in `v20.1.0`; if there is none, no version is too old.
fn major(version: &str) -> u32 {
    let digits = version.trim_start_matches('v').split('.').next();
    digits
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(u32::MAX)
}

/// Installs the Socket.IO server with the packages of its lock file, and returns its folder. Runs no scripts of packages:
/// the native add-ons come with builds for the usual systems.
pub(super) fn install_socket_io(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let source = workspace.root().join(SOCKET_IO);
    let folder = workspace.target_dir().join("peers/socketio");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    copy(&source, &folder, "server.js")?;
    let lock = source.join("package-lock.json");
    let wanted =
        fs::read_to_string(&lock).with_context(|| format!("cannot read {}", lock.display()))?;
    // Written last, so that an interrupted installation is repeated.
    let installed = folder.join("installed.json");
    if fs::read_to_string(&installed).is_ok_and(|installed| installed == wanted) {
        return Ok(folder);
    }
    if !may_install() {
        bail!(
            "the packages of {SOCKET_IO} are missing, and {INSTALL_VARIABLE}=no forbids to install them into {}",
            folder.display()
        );
    }
    copy(&source, &folder, "package.json")?;
    copy(&source, &folder, "package-lock.json")?;
    eprintln!(
        "installing the packages of {SOCKET_IO} into {}: npm ci",
        folder.display()
    );
    let words = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
    run_program(Command::new("npm").args(words).current_dir(&folder)).context(
        "the packages of the Socket.IO server cannot be installed; npm must reach its registry or a mirror (npm config set registry)",
    )?;
    fs::write(&installed, wanted)
        .with_context(|| format!("cannot write {}", installed.display()))?;
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
    go.args(["build", "-mod=readonly", "-o"])
        .arg(&program)
        .arg(".")
        .current_dir(workspace.root().join(CENTRIFUGE));
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
    fn a_missing_program_is_one_line_that_says_what_to_install() {
        let program = |name, major_min| Program {
            name,
            version: "--version",
            major_min,
            install: "install it",
        };
        let none = program("no-such-program-here", 0);
        assert_eq!(
            missing("Socket.IO", &[none]).as_deref(),
            Some("SKIPPED Socket.IO: no-such-program-here is missing; install it")
        );
        assert_eq!(missing("Socket.IO", &[program("cargo", 0)]), None);
        for needed in FOR_SOCKET_IO.iter().chain(FOR_CENTRIFUGE) {
            let absent = Program {
                name: "no-such-program-here",
                ..*needed
            };
            let line = missing("a server", &[absent]).expect("it is missing");
            assert!(
                line.contains("install ") && line.contains("https://") && !line.contains('\n'),
                "{line}"
            );
        }
    }

    #[test]
    fn a_program_that_is_too_old_is_named_with_its_version() {
        let node = &FOR_SOCKET_IO[0];
        let line = complaint("Socket.IO", node, Some("v18.2.0")).expect("it is too old");
        assert!(line.starts_with("SKIPPED Socket.IO: node is v18.2.0, which is too old; install"));
        for good in ["v20.1.0", "v24.0.0", "of no known form"] {
            assert_eq!(complaint("Socket.IO", node, Some(good)), None, "{good}");
        }
    }
}
