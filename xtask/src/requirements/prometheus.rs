//! Checks for `promtool`, and installs it from Debian's packages.

use std::io;
use std::process::Command;

use anyhow::{Context as _, bail};

use super::debian;

/// Whether `promtool` is in PATH.
pub(super) fn present() -> anyhow::Result<bool> {
    let asked = match Command::new("promtool").arg("--version").output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        asked => asked.context("cannot run promtool")?,
    };
    if !asked.status.success() {
        bail!("`promtool --version` fails with {}", asked.status);
    }
    Ok(true)
}

/// The package also brings the server, which is not started.
pub(super) fn install() -> anyhow::Result<()> {
    debian::install_without_starting("prometheus", "prometheus.service")
}
