//! The locations of the repository, of cargo, and of the folder that cargo builds into.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use serde::Deserialize;

/// The repository and its build folder.
#[derive(Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
    target_dir: PathBuf,
}

impl Workspace {
    /// Finds the workspace that this program was built from. Asks cargo for the build folder, because
    /// `CARGO_TARGET_DIR` and cargo's configuration may both move it.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let manifest_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = manifest_dir
            .parent()
            .context("the xtask crate has no parent folder")?
            .to_owned();
        let metadata = cargo_at(&root)
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .output()
            .context("cannot run cargo; is it installed and in PATH?")?;
        if !metadata.status.success() {
            bail!(
                "`cargo metadata` failed: {}",
                String::from_utf8_lossy(&metadata.stderr).trim()
            );
        }
        #[derive(Deserialize)]
        struct Metadata {
            target_directory: PathBuf,
        }
        let Metadata { target_directory } = serde_json::from_slice(&metadata.stdout)
            .context("`cargo metadata` printed no metadata")?;
        Ok(Self {
            root,
            target_dir: target_directory,
        })
    }

    /// The folder of the repository.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The folder that cargo builds into.
    pub(crate) fn target_dir(&self) -> &Path {
        &self.target_dir
    }

    /// The folder of built plugins. `platform.toml` and the tests expect it there, wherever cargo builds.
    pub(crate) fn plugins_dir(&self) -> PathBuf {
        self.root.join("target/plugins")
    }

    /// The path of a program that cargo has built.
    pub(crate) fn program(&self, profile_dir: &str, name: &str) -> PathBuf {
        self.target_dir
            .join(profile_dir)
            .join(format!("{name}{}", env::consts::EXE_SUFFIX))
    }

    /// A cargo command in the folder of the repository.
    pub(crate) fn cargo(&self) -> Command {
        cargo_at(&self.root)
    }
}

/// Uses the cargo that runs this program, so that a toolchain chosen on the command line stays chosen.
fn cargo_at(root: &Path) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    cargo.current_dir(root);
    cargo
}
