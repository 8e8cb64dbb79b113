//! The files of the crate that cargo packs. The tests of the other SDKs list those of their packages.

use anyhow::{Context as _, bail};

use crate::steps::run_program;
use crate::workspace::Workspace;

/// The files of the crate, in addition to other sources.
const FILES: [&str; 4] = ["LICENSE-APACHE", "LICENSE-MIT", "README.md", "src/lib.rs"];

/// The files that cargo writes.
const OF_CARGO: [&str; 4] = [
    ".cargo_vcs_info.json",
    "Cargo.lock",
    "Cargo.toml",
    "Cargo.toml.orig",
];

/// Packs a crate of the workspace, and checks that the result has its files and no others.
pub(super) fn check_crate(workspace: &Workspace, name: &str) -> anyhow::Result<()> {
    let words = ["package", "--allow-dirty", "--package", name];
    let mut list = workspace.cargo();
    let output = list.args(words).arg("--list").output();
    let output = output.context("cannot run cargo")?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`cargo package --list` failed for {name}: {}",
            errors.trim()
        );
    }
    check(&String::from_utf8_lossy(&output.stdout))
        .with_context(|| format!("the packed crate {name}"))?;
    let mut pack = workspace.cargo();
    run_program(pack.args(words).args(["--no-verify", "--quiet"]))
}

/// Checks a list of paths, one on each line.
fn check(list: &str) -> anyhow::Result<()> {
    let is_source = |path: &str| path.starts_with("src/") && path.ends_with(".rs");
    let is_known = |path: &&str| FILES.contains(path) || OF_CARGO.contains(path) || is_source(path);
    let unexpected: Vec<_> = list.lines().filter(|path| !is_known(path)).collect();
    if !unexpected.is_empty() {
        bail!("has files that nobody needs: {}", unexpected.join(", "));
    }
    let is_missing = |file: &&str| !list.lines().any(|path| path == *file);
    let missing: Vec<_> = FILES.into_iter().filter(is_missing).collect();
    if !missing.is_empty() {
        bail!("lacks {}", missing.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_has_its_sources_readme_and_licences_and_nothing_else() {
        let whole =
            "Cargo.toml\nLICENSE-APACHE\nLICENSE-MIT\nREADME.md\nsrc/core/mod.rs\nsrc/lib.rs\n";
        assert!(check(whole).is_ok());
        let error = check(&format!("{whole}tests/connection.rs\n")).expect_err("a test");
        assert!(error.to_string().contains("tests/connection.rs"), "{error}");
        let error = check(&whole.replace("LICENSE-MIT\n", "")).expect_err("no licence");
        assert_eq!(error.to_string(), "lacks LICENSE-MIT");
    }
}
