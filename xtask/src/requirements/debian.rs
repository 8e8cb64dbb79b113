//! Installs packages of Debian and its derivatives, without starting their services.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::steps::run_program;

/// The program that a package asks before it starts a service (`invoke-rc.d`): exit code 101 forbids it.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Exists while systemd runs the machine.
const SYSTEMD: &str = "/run/systemd/system";

/// Installs a package and leaves its service neither running nor enabled: a command that needs a server starts its own.
pub(super) fn install_without_starting(package: &str, service: &str) -> anyhow::Result<()> {
    install(&[package])?;
    if Path::new(SYSTEMD).exists() {
        run_program(Command::new("systemctl").args(["disable", "--now", service]))?;
    }
    Ok(())
}

/// Installs packages without starting services that come with them.
pub(super) fn install(packages: &[&str]) -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("packages are installed by root, and this is another user");
    }
    run_program(apt_get().arg("update"))?;
    let policy = Policy::forbid_starting(Path::new(POLICY))?;
    let mut install = apt_get();
    install.args(["install", "-y", "--no-install-recommends"]);
    let installed = run_program(install.args(packages));
    drop(policy);
    installed
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// A policy that forbids starting services; `None` if the machine has one, which is left unchanged.
struct Policy(Option<PathBuf>);

impl Policy {
    fn forbid_starting(file: &Path) -> anyhow::Result<Self> {
        let mut options = OpenOptions::new();
        let mut opened = match options.write(true).create_new(true).mode(0o755).open(file) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(Self(None)),
            opened => opened.with_context(|| format!("cannot create {}", file.display()))?,
        };
        let policy = Self(Some(file.to_owned()));
        let written = opened.write_all(b"#!/bin/sh\nexit 101\n");
        written.with_context(|| format!("cannot write {}", file.display()))?;
        Ok(policy)
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        if let Some(file) = &self.0
            && let Err(error) = fs::remove_file(file)
        {
            let file = file.display();
            eprintln!("{file} keeps services from starting and cannot be removed: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::temp::TempDir;

    #[test]
    fn a_policy_forbids_starting_and_goes_away() {
        let folder = TempDir::new("policy").expect("a temporary folder");
        let file = folder.path().join("policy-rc.d");
        let policy = Policy::forbid_starting(&file).expect("a policy");
        let answer = Command::new("sh").arg(&file).status();
        assert_eq!(answer.expect("it can be run").code(), Some(101));
        drop(policy);
        assert!(!file.exists());
    }

    #[test]
    fn the_policy_of_the_machine_is_left_alone() {
        let folder = TempDir::new("own-policy").expect("a temporary folder");
        let file = folder.path().join("policy-rc.d");
        fs::write(&file, "its own").expect("a file");
        drop(Policy::forbid_starting(&file).expect("there is one"));
        assert_eq!(fs::read_to_string(&file).expect("it is there"), "its own");
    }
}
