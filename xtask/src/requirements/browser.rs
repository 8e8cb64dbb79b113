//! Checks for a browser and its driver, and installs them from Debian's packages.

use std::io;
use std::process::Command;

use anyhow::{Context as _, bail};

use super::debian;

/// Whether the driver, which finds the browser, is in PATH.
pub(super) fn present() -> anyhow::Result<bool> {
    let asked = match Command::new("chromedriver").arg("--version").output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        asked => asked.context("cannot run chromedriver")?,
    };
    if !asked.status.success() {
        bail!("`chromedriver --version` fails with {}", asked.status);
    }
    Ok(true)
}

/// The driver's package brings the browser; without a font the browser shows boxes.
pub(super) fn install() -> anyhow::Result<()> {
    debian::install(&["chromium-driver", "fonts-dejavu-core"])
}
