//! `cargo xtask plugins`: builds plugins and puts them where the server looks for them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, ensure};
use clap::Args;

use crate::requirements::{self, PLUGIN_TARGET, WASM_TARGET};
use crate::steps::run_program;
use crate::workspace::Workspace;

/// Plugins of this workspace that ship with the server.
const SHIPPED: &[&str] = &["chat"];

/// Plugins of this workspace that serve as examples.
const EXAMPLES: &[&str] = &["hello", "moderation"];

/// The workspace of the plugins that the server's tests load.
const GUESTS_MANIFEST: &str = "host/tests/guests/Cargo.toml";

/// The cargo profile of plugins.
const PROFILE: &str = "plugin";

/// The first bytes of a component: the magic number of WebAssembly, version 13, layer 1. A core module has layer 0.
const COMPONENT_HEADER: [u8; 8] = [0, b'a', b's', b'm', 0x0d, 0, 1, 0];

/// Options of `cargo xtask plugins`.
#[derive(Debug, Args)]
pub(crate) struct PluginsArgs {
    /// Also build the plugins in the folder examples
    #[arg(long)]
    examples: bool,
    /// Also build the plugins that the server's tests load
    #[arg(long)]
    guests: bool,
}

/// Builds the shipped plugins, and the examples and the guests of the tests if asked to.
pub(crate) fn run(workspace: &Workspace, args: &PluginsArgs) -> anyhow::Result<ExitCode> {
    requirements::ensure(&[WASM_TARGET])?;
    build_shipped(workspace)?;
    if args.examples {
        build_examples(workspace)?;
    }
    if args.guests {
        build_guests(workspace)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds the shipped plugins into `target/plugins`.
pub(crate) fn build_shipped(workspace: &Workspace) -> anyhow::Result<()> {
    build_members(workspace, SHIPPED)
}

/// Builds the examples into `target/plugins`.
pub(crate) fn build_examples(workspace: &Workspace) -> anyhow::Result<()> {
    build_members(workspace, EXAMPLES)
}

/// Builds members of this workspace, whose packages have the names of their components.
fn build_members(workspace: &Workspace, names: &[&str]) -> anyhow::Result<()> {
    let mut cargo = build(workspace);
    for name in names {
        cargo.args(["-p", name]);
    }
    run_program(&mut cargo)?;
    let built = workspace.target_dir().join(PLUGIN_TARGET).join(PROFILE);
    for name in names {
        let file = format!("{name}.wasm");
        install(&built.join(&file), &workspace.plugins_dir().join(&file))?;
    }
    Ok(())
}

fn build(workspace: &Workspace) -> Command {
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--target", PLUGIN_TARGET, "--profile", PROFILE]);
    cargo
}

/// Builds the guests of the tests into `target/plugins/guests`.
pub(crate) fn build_guests(workspace: &Workspace) -> anyhow::Result<()> {
    let manifest = workspace.root().join(GUESTS_MANIFEST);
    let target_dir = workspace.target_dir().join("guests");
    let mut cargo = build(workspace);
    cargo.arg("--manifest-path").arg(&manifest);
    // A separate folder on the command line takes precedence over CARGO_TARGET_DIR: the guests' workspace has another
    // lock file.
    cargo.arg("--target-dir").arg(&target_dir);
    run_program(&mut cargo)?;
    let built = target_dir.join(PLUGIN_TARGET).join(PROFILE);
    let components = wasm_files(&built)?;
    ensure!(
        !components.is_empty(),
        "the build of {} left no .wasm file in {}",
        manifest.display(),
        built.display()
    );
    for component in components {
        let name = component.file_name().unwrap_or_default();
        let place = workspace.plugins_dir().join("guests").join(name);
        install(&component, &place)?;
    }
    Ok(())
}

fn wasm_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let unreadable = || format!("cannot read the folder {}", folder.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(unreadable)? {
        files.push(entry.with_context(unreadable)?.path());
    }
    files.retain(|file| {
        file.extension()
            .is_some_and(|extension| extension == "wasm")
    });
    files.sort();
    Ok(files)
}

/// Copies a component to the place where it is used, but only if it changed: a running server swaps a plugin whose file
/// changes.
fn install(from: &Path, to: &Path) -> anyhow::Result<()> {
    let bytes = fs::read(from)
        .with_context(|| format!("cannot read the built plugin {}", from.display()))?;
    ensure!(
        bytes.starts_with(&COMPONENT_HEADER),
        "{} is not a WebAssembly component; build it for {PLUGIN_TARGET}",
        from.display()
    );
    let place = to.display();
    let changed =
        replace_if_changed(to, &bytes).with_context(|| format!("cannot write {place}"))?;
    eprintln!("{} {place}", if changed { "wrote" } else { "unchanged" });
    Ok(())
}

/// Replaces a file in one step, so that no reader ever sees half of it. Returns whether the content is new.
pub(crate) fn replace_if_changed(file: &Path, bytes: &[u8]) -> io::Result<bool> {
    if fs::read(file).is_ok_and(|old| old == bytes) {
        return Ok(false);
    }
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    // The process ID keeps two concurrent builds from writing to each other's file.
    let temporary = file.with_extension(format!("{}.tmp", std::process::id()));
    let replaced = fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, file));
    if replaced.is_err() {
        // The first error is reported; a file that was never created cannot be removed either.
        let _ = fs::remove_file(&temporary);
    }
    replaced.map(|()| true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::temp::TempDir;

    #[test]
    fn a_file_is_replaced_only_when_its_content_changes() {
        let folder = TempDir::new("replace").expect("a temporary folder");
        let file = folder.path().join("deep/p.wasm");
        assert!(replace_if_changed(&file, b"one").is_ok_and(|changed| changed));
        assert!(replace_if_changed(&file, b"one").is_ok_and(|changed| !changed));
        assert!(replace_if_changed(&file, b"two").is_ok_and(|changed| changed));
        assert_eq!(fs::read(&file).ok().as_deref(), Some(&b"two"[..]));
        let left = fs::read_dir(folder.path().join("deep")).map(Iterator::count);
        assert_eq!(left.ok(), Some(1), "no temporary file is left");
    }

    #[test]
    fn only_components_are_installed() {
        let folder = TempDir::new("install").expect("a temporary folder");
        let (from, to) = (folder.path().join("a.wasm"), folder.path().join("b.wasm"));
        fs::write(&from, b"\0asm\x01\0\0\0").expect("a writable folder");
        let error = install(&from, &to).expect_err("it is a core module");
        assert!(
            error.to_string().contains("not a WebAssembly component"),
            "{error}"
        );
        assert!(!to.exists());
        fs::write(&from, COMPONENT_HEADER).expect("a writable folder");
        assert!(install(&from, &to).is_ok());
        assert_eq!(wasm_files(folder.path()).ok(), Some(vec![from, to]));
    }
}
