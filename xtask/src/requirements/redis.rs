//! Checks for `redis-server` and its version, and installs it from Debian's packages.

use std::io;
use std::process::Command;

use anyhow::{Context as _, bail};

use super::debian;

/// The first version with sharded publish and subscribe.
const OLDEST: (u32, u32) = (7, 0);

/// Whether the first `redis-server` in PATH is new enough. An older one is an error, because a newer one installed next
/// to it would not be found.
pub(super) fn present() -> anyhow::Result<bool> {
    let asked = match Command::new("redis-server").arg("--version").output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        asked => asked.context("cannot run redis-server")?,
    };
    let said = String::from_utf8_lossy(&asked.stdout);
    match version(&said) {
        Some(found) if found >= OLDEST => Ok(true),
        Some((major, minor)) => bail!("the redis-server in PATH is {major}.{minor}, too old"),
        None => bail!("`redis-server --version` says {:?}", said.trim()),
    }
}

pub(super) fn install() -> anyhow::Result<()> {
    debian::install_without_starting("redis-server", "redis-server.service")
}

/// Reads the major and minor version from a text such as `Redis server v=7.0.15 sha=...`.
fn version(said: &str) -> Option<(u32, u32)> {
    let (_, rest) = said.split_once("v=")?;
    let mut numbers = rest.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_what_the_server_says() {
        let debian =
            "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=1a2b\n";
        assert_eq!(version(debian), Some((7, 0)));
        assert_eq!(version("Server v=8.1.0 sha=0 bits=64"), Some((8, 1)));
        assert_eq!(version("redis-server: bad option"), None);
        assert!(OLDEST <= (8, 0) && OLDEST > (6, 2));
    }
}
