//! The Python packages that tests start: moto simulates CloudWatch, kosoku runs the Autobahn cases, and
//! openapi-python-client generates a client of the API.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::requirements::{INSTALL_VARIABLE, may_install};
use crate::steps::run_program;
use crate::workspace::Workspace;

/// The list of packages with their versions, relative to the repository.
const PACKAGES: &str = "host/tests/it/cloudwatch/requirements.txt";

/// The folder to install into, relative to the repository. The tests expect it there, wherever cargo builds.
const ENVIRONMENT: &str = "target/moto";

/// Instructions for the user if the installation fails.
const BY_HAND: &str = "python3 with its venv module is needed (Debian: python3-venv), and a pip that reaches PyPI or a mirror of \
                       it (PIP_INDEX_URL, PIP_FIND_LINKS)";

/// Installs the packages if they are not installed yet.
pub(crate) fn install(workspace: &Workspace) -> anyhow::Result<()> {
    let root = workspace.root();
    let packages = root.join(PACKAGES);
    let environment = root.join(ENVIRONMENT);
    let wanted = fs::read_to_string(&packages)
        .with_context(|| format!("cannot read {}", packages.display()))?;
    // Written last, so that an interrupted installation is repeated.
    let installed = environment.join("installed.txt");
    if fs::read_to_string(&installed).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    let missing =
        || format!("the packages of {PACKAGES} are missing and cannot be installed: {BY_HAND}");
    if !may_install() {
        bail!(
            "the packages of {PACKAGES} are missing, and {INSTALL_VARIABLE}=no forbids to install them into {ENVIRONMENT}"
        );
    }
    eprintln!("installing the packages of {PACKAGES} into {ENVIRONMENT}: pip install");
    build(&environment, &packages).with_context(missing)?;
    fs::write(&installed, wanted).with_context(|| format!("cannot write {}", installed.display()))
}

fn build(environment: &Path, packages: &Path) -> anyhow::Result<()> {
    run_program(
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(environment),
    )?;
    run_program(
        Command::new(environment.join("bin/python"))
            .args(["-m", "pip", "install", "--quiet", "--no-input"])
            .args(["--disable-pip-version-check", "--requirement"])
            .arg(packages),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_is_installed_in_one_version() {
        let packages = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .join(PACKAGES);
        let text = fs::read_to_string(packages).expect("the list of packages");
        let packages: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        for package in ["moto==", "kosoku==", "openapi-python-client=="] {
            assert!(packages.iter().any(|line| line.starts_with(package)));
        }
        assert!(packages.iter().all(|line| line.contains("==")), "{text}");
    }
}
