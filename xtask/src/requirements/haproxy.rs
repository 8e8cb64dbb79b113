//! Checks for `haproxy`, and installs it from Debian's packages.

use std::io;
use std::process::Command;

use anyhow::{Context as _, bail};

use super::debian;

/// Whether `haproxy` is in PATH.
pub(super) fn present() -> anyhow::Result<bool> {
    let asked = match Command::new("haproxy").arg("-v").output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        asked => asked.context("cannot run haproxy")?,
    };
    if !asked.status.success() {
        bail!("`haproxy -v` fails with {}", asked.status);
    }
    Ok(true)
}

pub(super) fn install() -> anyhow::Result<()> {
    debian::install_without_starting("haproxy", "haproxy.service")
}
